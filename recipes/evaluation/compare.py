"""What `sitkit compare` does: show two reports side by side, with the settings that differ."""

import json
from pathlib import Path
from typing import Any

from ..storage.files import read_regular
from ..support.errors import UserError
from ..support.json_toml import differences, read_json
from .text_table import with_spread

WIDTH, COLUMN = 46, 22
ROUNDING_ONLY = "made_by."
"""The prefix of keys of a manifest that affect metrics by rounding only; they are shown last."""


def read_report(path: Path) -> dict[str, Any]:
    """Return a report: a file, or `report.json` in a folder.

    Raises:
        UserError: there is none.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        report = read_json(read_regular(file))
        if not (isinstance(report["numbers"], dict) and isinstance(report["manifest"], dict)):
            raise TypeError("numbers and manifest are not tables")
        for number in report["numbers"].values():
            _difference(number, number)
            with_spread(number)
    except FileNotFoundError:
        raise UserError(f"there is no report {file}: `sitkit evaluate` writes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a report ({error}): run `sitkit evaluate` again") from error
    return dict(report)


def compare(one: Path, other: Path) -> str:
    """Return the metrics of two reports side by side, and the keys at which their manifests differ.

    With several draws, a difference has a * if it exceeds two standard errors.

    Raises:
        UserError: there are no such reports.
    """
    reports = [read_report(path) for path in (one, other)]
    names = dict.fromkeys(name for report in reports for name in report["numbers"])
    lines = [
        f"{'':{WIDTH}}"
        + "".join(f"{_short(str(path)):>{COLUMN}}" for path in (one, other))
        + f"{'difference':>{COLUMN}}"
    ]
    for name in names:
        numbers = [report["numbers"].get(name) for report in reports]
        cells = ["" if number is None else with_spread(number) for number in numbers]
        difference = "" if None in numbers else _difference(*numbers)
        lines.append(f"{name:{WIDTH}}" + "".join(f"{cell:>{COLUMN}}" for cell in (*cells, difference)))
    changed = differences(reports[0]["manifest"], reports[1]["manifest"])
    lines += ["", f"{len(changed)} settings differ" + (":" if changed else "")]
    for key in sorted(changed, key=lambda key: (key.startswith(ROUNDING_ONLY), key)):
        values = [_short(json.dumps(value)) for value in changed[key]]
        lines.append(f"{key:{WIDTH}}" + "".join(f"{value:>{COLUMN}}" for value in values))
    return "\n".join(lines)


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the second mean minus the first, with a * if it exceeds two standard errors."""
    found = other["mean"] - one["mean"]
    counts = [len(number["values"]) for number in (one, other)]
    if min(counts) < 2:
        return f"{found:+.4g}"
    error = sum(number["spread"] ** 2 / count for number, count in zip((one, other), counts, strict=True)) ** 0.5
    return f"{found:+.4g}" + (" *" if abs(found) > 2 * error else "")


def _short(text: str) -> str:
    return text if len(text) < COLUMN else f"...{text[5 - COLUMN :]}"
