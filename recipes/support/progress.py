"""Progress of long work: a bar on a terminal, or else a line every 15 seconds; and lines that are printed once."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

Advance: TypeAlias = Callable[..., None]
"""`advance(count, note="")` reports that `count` more items are done; `note` is shown beside the progress."""

SECONDS_BETWEEN_LINES = 15.0


@cache
def print_once(line: str) -> None:
    """Print a line to standard error, once in a process, and only in the process of rank 0."""
    if int(os.environ.get("RANK") or 0) == 0:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int, done: int = 0, unit: str = "", quiet: bool = False) -> Iterator[Advance]:
    """Show the progress of a task on standard error.

    Args:
        label: what is done, such as "training".
        total: the number of items in all.
        done: the number of items that were done before.
        unit: the name of the items.
        quiet: whether to show nothing.
    """
    if quiet:
        yield lambda count, note="": None
    elif sys.stderr.isatty():
        yield from _bar(label, total, done, unit)
    else:
        yield from _lines(label, total, done, unit)


def _bar(label: str, total: int, done: int, unit: str) -> Iterator[Advance]:
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
        task = bar.add_task(label, total=total, completed=done, note="")

        def advance(count: int, note: str = "") -> None:
            bar.advance(task, count)
            if note:
                bar.update(task, note=note)

        yield advance


def _lines(label: str, total: int, done: int, unit: str) -> Iterator[Advance]:
    start = last = time.monotonic()
    first = now = done
    last_note = ""

    def advance(count: int, note: str = "") -> None:
        nonlocal now, last, last_note
        now += count
        last_note = note or last_note
        moment = time.monotonic()
        if moment - last < SECONDS_BETWEEN_LINES and now < total:
            return
        last = moment
        left = (moment - start) / max(now - first, 1) * (total - now)
        parts = [f"{label} {now}/{total} {unit}".rstrip(), last_note, f"{left:.0f} s left" if left else ""]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)

    yield advance
