"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere; and notes."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

Advance: TypeAlias = Callable[..., None]
"""advance(count, note=""): so many more are done, and something to show beside."""

SECONDS_BETWEEN_LINES = 15.0


@cache
def print_once(line: str) -> None:
    """Write a line to standard error: once a process, and by the first of several processes only."""
    if int(os.environ.get("RANK") or 0) == 0:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int, done: int = 0, unit: str = "", quiet: bool = False) -> Iterator[Advance]:
    """Show how far a piece of work is, unless `quiet`: `total` in all, `done` before it starts."""
    if quiet:
        yield lambda count, note="": None
    elif sys.stderr.isatty():
        yield from _bar(what, total, done, unit)
    else:
        yield from _lines(what, total, done, unit)


def _bar(what: str, total: int, done: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")

        def advance(count: int, note: str = "") -> None:
            bar.advance(task, count)
            if note:
                bar.update(task, note=note)

        yield advance


def _lines(what: str, total: int, done: int, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    first = now = done
    noted = ""

    def advance(count: int, note: str = "") -> None:
        nonlocal now, last, noted
        now += count
        noted = note or noted
        moment = time.monotonic()
        if moment - last < SECONDS_BETWEEN_LINES and now < total:
            return
        last = moment
        left = (moment - start) / max(now - first, 1) * (total - now)
        parts = [f"{what} {now}/{total} {unit}".rstrip(), noted, f"{left:.0f} s left" if left else ""]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    yield advance
