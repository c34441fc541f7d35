"""The numbers of a report as lines of text."""

from collections.abc import Mapping
from typing import Any

WIDTH = 46


def table(report: Mapping[str, Any]) -> str:
    """Return the numbers of a report as aligned lines: of samples, of other sets of samples, and of real images."""
    numbers = report["numbers"]
    others = other_sets(numbers)
    head = f"{'':{WIDTH}}{'samples':>22}" + "".join(f"{what:>22}" for what in others) + f"{'real':>10}"
    lines = [head]
    for name, number in numbers.items():
        cells = [with_spread(number), *(with_spread(number[what]) if what in number else "" for what in others)]
        real = "" if number["real"] is None else f"{number['real']:.4g}"
        lines.append(f"{name:{WIDTH}}" + "".join(f"{cell:>22}" for cell in cells) + f"{real:>10}")
    return "\n".join([*lines, *too_few(report)])


def too_few(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each number that is too large for there being so few samples, by a hundredth or more.

    And one for a reference of fewer images than features, from which every distance is large.
    """
    manifest = report["manifest"]
    lines = [
        f"{name}: {_part(number)} due to there being {manifest['samples']} samples and no more"
        for name, number in report["numbers"].items()
        if number["bias"] and number["bias"] > 0.01 * abs(number["mean"])
    ]
    count, size = manifest["reference"].get("count"), manifest["features"]["size"]
    if count is not None and count < size:
        lines.append(
            f"the reference has {count} images, fewer than the {size} features: far from it are real ones, too"
        )
    return lines


def _part(number: Mapping[str, Any]) -> str:
    """Return how much of a number its bias is; the estimate may be more than there is where that is little."""
    return f"of it, about {number['bias']:.2g} are" if number["bias"] < number["mean"] else "about all of it is"


def other_sets(numbers: Mapping[str, Any]) -> list[str]:
    """Return the names of the sets of samples that stand beside the first, such as those without guidance."""
    first: Mapping[str, Any] = next(iter(numbers.values()))
    return [what for what, value in first.items() if isinstance(value, Mapping)]


def with_spread(number: Mapping[str, Any]) -> str:
    """Return a mean, and its standard deviation over draws if there are several."""
    spread = number["spread"]
    return f"{number['mean']:.4g}" + ("" if spread is None else f" +- {spread:.2g}")
