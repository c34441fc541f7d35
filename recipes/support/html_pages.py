"""HTML pages, and Markdown, from Jinja2 templates.

Templates are in the folders `templates` of `recipes`. `support/templates/base.html` has the style of all pages, and
`macros.html` their tables and images. HTML templates escape all values. Images are inside a page: it is one file.
"""

import base64
import io
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from matplotlib.figure import Figure


def render(template: str, **values: Any) -> str:
    """Return a template of `recipes`, such as `study/templates/study.html`, with values put in."""
    return _environment().get_template(template).render(values)


def figure_png(figure: Figure) -> bytes:
    """Return a figure of Matplotlib as a PNG."""
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def data_uri(png: bytes) -> str:
    """Return a PNG as the address of an image that is inside a page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def bold(text: object) -> Markup:
    """Return escaped HTML in which text between two pairs of stars is bold, as in Markdown."""
    return Markup(re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", str(escape(text))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"bold": bold, "data_uri": data_uri}
    return environment
