"""Tables of throughput: medians with quartiles, rates relative to a large matmul, and ratios per round."""

import os
from statistics import median, quantiles
from typing import Any

from shapes import Setup

SUFFIX = {"wall": "", "processor": "_cpu"}
"""Suffixes of the keys of times, by clock."""
QUIET = 1.25
"""The load per core up to which a machine counts as quiet."""


def default_clock(group: dict[str, Any]) -> str:
    """Return wall-clock time for a quiet machine and for GPUs, processor time otherwise."""
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
    """Return the table of a group in Markdown, and its values."""
    clock = group["clock"]
    by_network = {title(record): record for record in group["times"]}
    matrix = by_network.pop("matrix")
    rates = [setup_of(matrix).operations() / taken for taken in seconds(matrix, "forward", clock)]
    ours = group["times"][1]
    timed = [(what, passes) for what, passes in (("forward", 1), ("step", 3)) if what in ours]
    pairs = [cell for what, _ in timed for cell in (f"{what}, images/s", "of GEMM")]
    head = ["network", *pairs, "time / sitkit's", "memory"]
    lines = [
        f"{group['name']}: GEMM {median(rates) / 1e9:,.0f} GFLOP/s, {clock} clock, load {median(matrix['load']):.1f}",
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
    """Return the name of a network with its settings."""
    setup = setup_of(record)
    settings = {
        "compiled": setup.compiled,
        f"{setup.processes} processes": setup.processes > 1,
        f"{setup.micro_batches} micro-batches": setup.micro_batches > 1,
        "activation checkpointing": setup.activation_checkpointing,
    }
    return ", ".join([setup.network, *(words for words, so in settings.items() if so)])


def quartiles(values: list[float]) -> list[float]:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return [low, middle, high]


def show(values: list[float]) -> str:
    """Return the median with the quartiles."""
    low, middle, high = (f"{value:.3g}" for value in values)
    return f"{middle} ({low} to {high})"
