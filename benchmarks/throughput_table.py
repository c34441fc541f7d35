"""From times to a table: medians with their quartiles, shares of the rate of a large product, and ratios by rounds."""

import os
from statistics import median, quantiles
from typing import Any

from shapes import Setup

SUFFIX = {"wall": "", "processor": "_cpu"}
"""Of the names of times, by clock."""
QUIET = 1.25
"""The load up to which a core is thought to have been there for whom was measured."""


def default_clock(group: dict[str, Any]) -> str:
    """Return the clock that says more: the processor's, if other programs had more to do than there were cores."""
    quiet = median(load for record in group["times"] for load in record["load"]) < QUIET * (os.cpu_count() or 1)
    return "wall" if quiet or group["setups"][0]["device"] != "cpu" else "processor"


def seconds(record: dict[str, Any], what: str, clock: str) -> list[float]:
    """Return the seconds of each round."""
    values: list[float] = record[f"{what}{SUFFIX[clock]}"]
    return values


def setup_of(record: dict[str, Any]) -> Setup:
    """Return the setup of a record of times."""
    return Setup(**{name: record[name] for name in Setup.__dataclass_fields__})


def describe(group: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return a group, by its clock, as a table in Markdown, and as numbers."""
    clock = group["clock"]
    by_network = {title(record): record for record in group["times"]}
    matrix = by_network.pop("matrix")
    rates = [setup_of(matrix).operations() / taken for taken in seconds(matrix, "forward", clock)]
    ours = group["times"][1]
    timed = [(what, passes) for what, passes in (("forward", 1), ("step", 3)) if what in ours]
    pairs = [cell for what, _ in timed for cell in (f"{what}, images/s", "of the product")]
    head = ["network", *pairs, "sitkit's to it", "memory"]
    lines = [
        f"{group['name']}: matrix product {median(rates) / 1e9:,.0f} GFLOP/s, {clock} clock, "
        f"load {median(matrix['load']):.1f}",
        "",
        f"| {' | '.join(head)} |",
        f"| --- |{(len(head) - 1) * ' ---: |'}",
    ]
    numbers: dict[str, Any] = {"matrix": median(rates), "load": median(matrix["load"]), "clock": clock}
    numbers["machine"] = group["machine"]
    last = timed[-1][0]
    for name, record in by_network.items():
        setup = setup_of(record)
        row: dict[str, Any] = {"memory": record["memory"], "ready": record["ready"]}
        for what, passes in timed:
            taken = seconds(record, what, clock)
            rounds = zip(taken, rates, strict=True)
            row[f"{what} images/s"] = quartiles([setup.batch / one for one in taken])
            row[f"{what} share"] = quartiles([passes * setup.operations() / one / rate for one, rate in rounds])
        both = zip(seconds(record, last, clock), seconds(ours, last, clock), strict=True)
        row["ratio"] = quartiles([one / mine for one, mine in both])
        numbers[name] = row
        keys = [f"{what} {key}" for what, _ in timed for key in ("images/s", "share")]
        cells = [show(row[key]) for key in (*keys, "ratio")]
        lines.append(f"| {name} | {' | '.join(cells)} | {record['memory'] / 2**20:,.0f} MiB |")
    return lines, numbers


def title(record: dict[str, Any]) -> str:
    """Return the name of a network as it was run."""
    setup = setup_of(record)
    said = {
        "compiled": setup.compiled,
        f"{setup.processes} processes": setup.processes > 1,
        f"{setup.accumulate} pieces": setup.accumulate > 1,
        "recomputed": setup.recompute,
    }
    return ", ".join([setup.network, *(words for words, so in said.items() if so)])


def quartiles(values: list[float]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return [low, middle, high]


def show(values: list[float]) -> str:
    """Return the median with the quartiles."""
    low, middle, high = (f"{value:.3g}" for value in values)
    return f"{middle} ({low} to {high})"
