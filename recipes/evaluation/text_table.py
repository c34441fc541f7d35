"""The metrics of a report as lines of text."""

from collections.abc import Mapping
from typing import Any

WIDTH = 44


def table(report: Mapping[str, Any]) -> str:
    """Return the metrics of a report as aligned columns: samples, other sets of samples, and real images."""
    numbers = report["numbers"]
    others = other_sets(numbers)
    head = f"{'':{WIDTH}}{'samples':>24}" + "".join(f"{what:>24}" for what in others) + f"{'real':>12}"
    lines = [head]
    for name, number in numbers.items():
        cells = [with_spread(number), *(with_spread(number[what]) if what in number else "" for what in others)]
        real = "" if number["real"] is None else f"{number['real']:.4g}"
        lines.append(f"{name:{WIDTH}}" + "".join(f"{cell:>24}" for cell in cells) + f"{real:>12}")
    return "\n".join([*lines, *too_few(report)])


def too_few(report: Mapping[str, Any]) -> list[str]:
    """Return a line for each metric that is too large by 1 % or more because of the finite number of samples.

    A further line warns of a reference with fewer images than features, from which all Frechet distances are large.
    """
    manifest = report["manifest"]
    lines = [
        f"{name}: {_bias(number)} due to the finite number of samples ({manifest['samples']})"
        for name, number in report["numbers"].items()
        if number["bias"] and number["bias"] > 0.01 * abs(number["mean"])
    ]
    count, size = manifest["reference"].get("count"), manifest["features"]["size"]
    if count is not None and count < size:
        lines.append(
            f"the reference has {count} images, fewer than the {size} features: real images, too, are far from it"
        )
    return lines


def _bias(number: Mapping[str, Any]) -> str:
    """Return the bias of a metric as text. The estimate can exceed the value of a small metric."""
    return f"about {number['bias']:.2g} of it is" if number["bias"] < number["mean"] else "about all of it is"


def other_sets(numbers: Mapping[str, Any]) -> list[str]:
    """Return the names of the sets of samples besides the first, such as `without guidance`."""
    first: Mapping[str, Any] = next(iter(numbers.values()))
    return [what for what, value in first.items() if isinstance(value, Mapping)]


def with_spread(number: Mapping[str, Any]) -> str:
    """Return a mean, and its standard deviation over draws if there are several."""
    spread = number["spread"]
    return f"{number['mean']:.4g}" + ("" if spread is None else f" +- {spread:.2g}")
