"""A report that is one file: HTML with its pictures inside."""

import base64
import html
import io
import json
from collections.abc import Mapping
from typing import Any

import matplotlib
import torch
from PIL import Image

from ..data.images import Split, read_all
from ..metrics import nearest
from ..run import Run
from ..sample.generate import Samples
from ..sample.pictures import label_grid, tile

matplotlib.use("agg")
from matplotlib import pyplot as plt

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } td:last-child { text-align: left; color: #666; font-size: .85rem }
img { max-width: 100%; image-rendering: pixelated } pre { background: #f6f6f6; padding: 1rem; overflow-x: auto }
"""
NEIGHBOURS = 12
PER_CLASS = 8


def write_report(run: Run, report: Mapping[str, Any], split: Split, plain: Samples, guided: Samples) -> str:
    """Return the HTML of a report: the numbers, the samples, their nearest neighbours, the loss, the manifest."""
    manifest = report["manifest"]
    title = f"{run.folder.resolve().name}, {manifest['checkpoint']}"
    rows = [_row(name, number) for name, number in report["numbers"].items()]
    scale = manifest["recipe"]["guidance"]["scale"]
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        "<table><tr><th></th><th>samples</th><th>real</th><td></td></tr>" + "".join(rows) + "</table>",
        f"<p>{manifest['draws']} draws of {manifest['samples']} samples, {manifest['network_calls']} calls each.</p>",
        _figure("Samples without guidance", _grid(plain, split)),
        _figure(f"Samples with guidance {scale:g}", _grid(guided, split)) if guided is not plain else "",
        _figure("Held-out images", _grid(Samples(read_all(split.heldout), split.heldout.labels, 0, 0), split)),
        _figure("Samples (above), the nearest training image, the nearest held-out image", _neighbours(plain, split)),
        _figure("Training loss", _loss(run)),
        f"<h2>Manifest</h2><pre>{html.escape(json.dumps(manifest, indent=2))}</pre>",
    ]
    head = f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    return head + "\n".join(sections)


def _row(name: str, number: Mapping[str, Any]) -> str:
    cells = [html.escape(name), f"{number['mean']:.4g} ± {number['spread']:.2g}", f"{number['real']:.4g}"]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, html.escape(number["meaning"]))) + "</tr>"


def _figure(caption: str, picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, format="png", optimize=True)
    source = base64.b64encode(data.getvalue()).decode()
    return f"<h2>{html.escape(caption)}</h2><img alt='{html.escape(caption)}' src='data:image/png;base64,{source}'>"


def _grid(samples: Samples, split: Split) -> Image.Image:
    """Return the first few images of every class."""
    if samples.labels is None or not split.classes:
        return label_grid(samples.pixels[: PER_CLASS**2], None, ())
    first = torch.cat([(samples.labels == label).nonzero()[:PER_CLASS, 0] for label in range(len(split.classes))])
    return label_grid(samples.pixels[first], samples.labels[first], split.classes)


def _neighbours(samples: Samples, split: Split) -> Image.Image:
    """Return a few samples above their nearest neighbours among training and held-out images."""
    chosen = samples.pixels[:NEIGHBOURS]
    rows = [chosen]
    for images in (read_all(split.training), read_all(split.heldout)):
        rows.append(images[nearest(chosen.flatten(1).float(), images.flatten(1).float())])
    return tile(torch.cat(rows), columns=len(chosen))


def _loss(run: Run) -> Image.Image:
    """Return the curve of the training loss."""
    records = run.metrics()
    figure, axes = plt.subplots(figsize=(8, 3), dpi=100, layout="constrained")
    axes.plot([record["step"] for record in records], [record["loss"] for record in records], linewidth=1)
    axes.set(xlabel="step", ylabel="loss of a batch")
    axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return Image.open(data)
