"""Threads on a quiet machine and beside a busy program: training steps of `digits`, forward passes of SiT-S/2.

    python benchmarks/load.py run --rounds 15
    python benchmarks/load.py table

`run` starts one process for each setting of OpenMP: one thread, torch's defaults, which the command line leaves on a
quiet machine, and what it sets on a busy one. The processes take turns of a second, first on the machine as it is, then
beside a process that computes without pause. Each turn records seconds, processor seconds and how many cores other
programs used. A turn on the quiet machine starts when the machine is idle, and is repeated if other programs used more
than `--noise` cores. `table` prints the results as docs/benchmarks/load.md shows them. Linux only: it reads /proc.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from sitkit.recipes.cli.threads import BUSY, WAIT_SETTINGS

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
RESULTS, OUT = Path("runs/benchmarks/load.jsonl"), Path("docs/benchmarks/load.json")
ONE = "one thread"
SETTINGS = {
    ONE: {"OMP_NUM_THREADS": "1"},
    "torch's defaults": {},  # the command line leaves them on a quiet machine
    "sitkit, busy machine": BUSY,
}
WORK = {"digits": "training step of `digits`", "S/2": "forward pass of SiT-S/2, batch 8"}
MACHINE = {False: "quiet", True: "busy"}
TICKS = os.sysconf("SC_CLK_TCK")
Noise = Annotated[float, typer.Option(min=0.0, help="Cores that other programs may use in a turn on a quiet machine.")]
Results = Annotated[Path, typer.Option(help="The file of the measurements.")]


@dataclass(frozen=True)
class Turn:
    """One turn of one process.

    Args:
        work: a key of `WORK`.
        busy: whether a busy program ran beside it.
        setting: a key of `SETTINGS`.
        round: each setting has one turn in each round.
        seconds: of a call.
        processor: seconds of all threads, of a call.
        others: cores that other programs used, the busy one not counted.
    """

    work: str
    busy: bool
    setting: str
    round: int
    seconds: float
    processor: float
    others: float


class Worker:
    """A process that repeats one kind of work under one setting of OpenMP."""

    def __init__(self, work: str, setting: Mapping[str, str]):
        names = (*WAIT_SETTINGS, "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        clean = {name: value for name, value in os.environ.items() if name not in names}
        command = [sys.executable, str(Path(__file__).with_name("load_worker.py")), work]
        self.process = subprocess.Popen(
            command, env={**clean, **setting}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._read() != "ready":
            raise SystemExit(f"error: the process of {work} did not start")

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def turn(self, seconds: float) -> tuple[int, float, float]:
        """Return the number of calls, their seconds and their processor seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        calls, taken, processor = json.loads(self._read())
        return calls, taken, processor

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def machine_ticks() -> int:
    """Return the processor time of all programs since the machine started."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, interrupts, soft_interrupts, _ = map(int, fields)
    return user + nice + system + interrupts + soft_interrupts


def process_ticks(pid: int) -> int:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def wait_until_idle(noise: float, deadline: float) -> None:
    """Wait until all programs together use less than `noise` cores for a fifth of a second, or until the deadline."""
    while time.monotonic() < deadline:
        before, start = machine_ticks(), time.monotonic()
        time.sleep(0.2)
        if (machine_ticks() - before) / TICKS / (time.monotonic() - start) < noise:
            return


def take_turn(
    worker: Worker, seconds: float, beside: int | None, noise: float, deadline: float
) -> tuple[float, float, float]:
    """Return seconds and processor seconds of a call, and the cores that other programs used.

    Args:
        worker: makes the calls.
        seconds: length of the turn.
        beside: the busy process that runs beside it; if None, a noisy turn is repeated.
        noise: cores that other programs may use then.
        deadline: no turn is repeated after it.
    """
    pids = [worker.process.pid, *([] if beside is None else [beside])]

    def others() -> int:
        return machine_ticks() - sum(process_ticks(pid) for pid in pids)

    while True:
        if beside is None:
            wait_until_idle(noise, deadline)
        before, start = others(), time.perf_counter()
        calls, taken, processor = worker.turn(seconds)
        used = max(0.0, (others() - before) / TICKS / (time.perf_counter() - start))
        if beside is not None or used <= noise or time.monotonic() >= deadline:
            return taken / calls, processor / calls, used


@app.command()
def run(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each setting.")] = 15,
    seconds: Annotated[float, typer.Option(min=0.0, help="Length of a turn; at least one call is made.")] = 1.0,
    patience: Annotated[float, typer.Option(min=0.0, help="Seconds in which a quiet turn is tried again.")] = 20.0,
    noise: Noise = 0.1,
    work: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(WORK)}; may be repeated.")] = None,
    results: Results = RESULTS,
) -> None:
    """Measure all settings, quiet and busy; each turn is added to the file of results."""
    results.parent.mkdir(parents=True, exist_ok=True)
    for one in work or WORK:
        with ExitStack() as stack:
            workers = {name: stack.enter_context(closing(Worker(one, SETTINGS[name]))) for name in SETTINGS}
            for busy in (False, True):
                beside = stack.enter_context(busy_program()) if busy else None
                for number, name in product(range(rounds), SETTINGS):
                    taken = take_turn(workers[name], seconds, beside, noise, time.monotonic() + patience)
                    turn = Turn(one, busy, name, number, *taken)
                    typer.echo(f"{one}, {MACHINE[busy]}, {name}: {turn.seconds:.3f} s")
                    with results.open("a") as stream:
                        stream.write(json.dumps(asdict(turn)) + "\n")


@contextmanager
def busy_program() -> Iterator[int]:
    """Run a process that computes without pause, and yield its number."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def quartiles(values: Sequence[float]) -> list[float]:
    """Return median, first and third quartile."""
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * [values[0]]
    return [middle, first, third]


def summarise(turns: Sequence[Turn], noise: float) -> list[dict[str, Any]]:
    """Return a row for each kind of work, quiet or busy, and setting. A noisy turn on the quiet machine is left out."""
    rows: list[dict[str, Any]] = []
    for work in WORK:
        for busy in (False, True):
            measured = [one for one in turns if (one.work, one.busy) == (work, busy) and (busy or one.others <= noise)]
            base = {one.round: one for one in measured if one.setting == ONE}
            for setting in SETTINGS:
                chosen = [one for one in measured if one.setting == setting]
                ratios = [one.seconds / base[one.round].seconds for one in chosen if one.round in base]
                if ratios:
                    rows.append(
                        {
                            "work": work,
                            "busy": busy,
                            "setting": setting,
                            "turns": len(chosen),
                            "seconds": quartiles([one.seconds for one in chosen]),
                            "processor": quartiles([one.processor for one in chosen]),
                            "ratio": quartiles(ratios),
                            "others": quartiles([one.others for one in chosen]),
                        }
                    )
    return rows


def show(values: Sequence[float]) -> str:
    """Return a median with its quartiles, in three digits or more."""
    middle, first, third = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values)
    return f"{middle} ({first} to {third})"


@app.command()
def table(
    noise: Noise = 0.1,
    results: Results = RESULTS,
    out: Annotated[Path, typer.Option(help="The file of the summary.")] = OUT,
) -> None:
    """Print the results as a table, and write them to a file: medians with quartiles."""
    rows = summarise([Turn(**json.loads(line)) for line in results.read_text().splitlines()], noise)
    typer.echo("| work | machine | setting | time / one thread's | ms | processor ms | cores of others | turns |")
    typer.echo("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        times = [show([1e3 * value for value in row[key]]) for key in ("seconds", "processor")]
        cells = [
            WORK[row["work"]],
            MACHINE[row["busy"]],
            row["setting"],
            show(row["ratio"]),
            *times,
            show(row["others"]),
        ]
        typer.echo(f"| {' | '.join(cells)} | {row['turns']} |")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    app()
