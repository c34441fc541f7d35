"""Error against NFE of the samplers of sitkit and of other libraries.

    python benchmarks/samplers.py run --task plane --task manifold
    python benchmarks/samplers.py run --task digits --task mnist5k
    python benchmarks/samplers.py plot

`run` resumes after an interruption. The options of each method are chosen on a separate seed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypedDict

import plots
import torch
import typer
from methods import METHODS, Method
from network_task import NETWORK_CALLS, NetworkTask
from runner import BenchmarkRunner, RecordStore
from summary import summarise, table
from tasks import ExactTask, Sizes, Task

from sitkit.recipes.storage.files import write_atomic
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.progress import progress

TASKS = ("plane", "manifold", "digits", "mnist5k")
NETWORK_METHODS = (
    "sitkit",
    "official SiT, Heun",
    "official SiT, Euler-Maruyama",
    "Euler-Maruyama",
    "stochastic Heun",
    "torchdiffeq",
    "diffusers DPM-Solver++",
    "diffusers UniPC",
    "diffusers DEIS",
    "diffusers SDE-DPM-Solver++",
    "diffusers SA-Solver",
)
"""The methods that run on trained networks, which cost a thousand times more per evaluation."""


class TaskOptions(TypedDict, total=False):
    """The options of a task."""

    quick: bool
    worlds: int
    count: int
    calls: Sequence[int] | None
    device: str


app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option(help="The folder of the summary and the plots.")]
Results = Annotated[Path, typer.Option(help="The file of finished measurements.")]
Tasks = Annotated[list[str], typer.Option("--task", help="May be repeated.")]
Worlds = Annotated[int, typer.Option(help="Data sets of each kind of exact data.")]
Count = Annotated[int, typer.Option(help="Samples per seed of a trained network; 0 for the default.")]
Calls = Annotated[list[int] | None, typer.Option(help="NFE; may be repeated.")]
Quick = Annotated[bool, typer.Option(help="A tiny run of everything.")]
OUT, RESULTS = Path("docs/benchmarks/samplers"), Path("runs/benchmarks/samplers.jsonl")


def build(
    name: str,
    *,
    quick: bool = False,
    worlds: int = 1,
    count: int = 0,
    calls: Sequence[int] | None = None,
    device: str = "cpu",
) -> Task:
    """Return a task.

    Raises:
        UserError: there is none of this name.
    """
    grid = tuple(sorted(calls or ())) or ((5, 10) if quick else ())
    if name in ("plane", "manifold"):
        kinds = ("ring", "mixture") if name == "plane" else ("manifold",)
        names = tuple(f"{kind}-{seed}" for kind in kinds for seed in range(worlds))
        sde = Sizes(20_000 if name == "plane" else 10_000, 5, 4_000)
        task = ExactTask(name, names, sde=sde, grid=grid)
        tiny = Sizes(64, 2, 32)
        return replace(task, worlds=names[:1], paths=("linear",), ode=tiny, sde=tiny) if quick else task
    cache, grid = RESULTS.parent, grid or NETWORK_CALLS
    if name == "digits":
        sizes = Sizes(200, 2, 100) if quick else Sizes(count or 10_000, 3, 500)
        return NetworkTask(name, Path("runs/digits"), sizes, ("ode", "sigma", "kl"), True, cache, grid, device)
    if name == "mnist5k":
        sizes = Sizes(16, 2, 16) if quick else Sizes(count or 128, 4, 64)
        return NetworkTask(name, Path("runs/mnist5k"), sizes, ("ode",), False, cache, grid, device)
    raise UserError(f"no task '{name}'; known: {', '.join(TASKS)}")


def methods_of(task: str, names: Sequence[str]) -> list[Method]:
    """Return the methods of a task: those of the given names, or the default ones."""
    wanted = names or (NETWORK_METHODS if task in TASKS[2:] else [one.name for one in METHODS])
    return [one for one in METHODS if one.name in wanted]


@app.command()
def run(
    out: Out = OUT,
    results: Results = RESULTS,
    task: Tasks = list(TASKS[:2]),  # noqa: B006 (typer copies it)
    method: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    worlds: Worlds = 1,
    count: Count = 0,
    calls: Calls = None,
    device: Annotated[str, typer.Option(help="Device of the networks.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    quick: Quick = False,
) -> None:
    """Run all missing measurements, then summarise and plot."""
    torch.set_num_threads(threads)
    choices: TaskOptions = {"quick": quick, "worlds": worlds, "count": count, "calls": calls, "device": device}
    store = RecordStore(results)
    runner = BenchmarkRunner(store, searches=not quick)
    try:
        for name in task:
            one, methods = build(name, **choices), methods_of(name, method or [])
            if isinstance(one, NetworkTask):
                asked = [setting.w for setting in one.settings() for c in methods if setting.w in c.solves]
                typer.echo(f"{name}: about {one.seconds(asked) / 60:.0f} min from the start", err=True)
            groups = sum(len(one.calls(s)) for s in one.settings() for c in methods if s.w in c.solves)
            with progress(name, groups, unit="groups") as advance:
                runner.run(one, methods, advance)
    except KeyboardInterrupt:
        typer.echo("interrupted; run the same command again to resume", err=True)
        raise typer.Exit(130) from None
    except UserError as problem:
        typer.echo(f"samplers: {problem}", err=True)
        raise typer.Exit(2) from None
    write(store, out, {name: build(name, **choices) for name in task})


@app.command()
def plot(
    out: Out = OUT,
    results: Results = RESULTS,
    task: Tasks = list(TASKS),  # noqa: B006 (typer copies it)
    worlds: Worlds = 1,
    count: Count = 0,
    calls: Calls = None,
    quick: Quick = False,
) -> None:
    """Summarise and plot the finished measurements."""
    choices: TaskOptions = {"quick": quick, "worlds": worlds, "count": count, "calls": calls}
    write(RecordStore(results), out, {name: build(name, **choices) for name in task})


@app.command("table")
def show(
    out: Out = OUT,
    task: Tasks = list(TASKS),  # noqa: B006 (typer copies it)
    options: Annotated[bool, typer.Option(help="Print the chosen options too.")] = False,
) -> None:
    """Print the summary as Markdown."""
    rows = json.loads((out / "summary.json").read_text())
    for name in task:
        here = [row for row in rows if row["task"] == name]
        for path, w in dict.fromkeys((row["path"], row["w"]) for row in here):
            calls = tuple(sorted({row["calls"] for row in here}))
            typer.echo(f"\n{name}, {path}, {w}\n\n{table(here, path, w, calls)}")
            for row in here:
                if options and (row["path"], row["w"]) == (path, w):
                    typer.echo(f"{row['contender']} {row['calls']}: {[x['options'] for x in row['worlds'].values()]}")


@app.command()
def forget(
    method: Annotated[str, typer.Argument(help="Its code has changed.")],
    results: Results = RESULTS,
) -> None:
    """Delete the measurements of a method."""
    typer.echo(f"{RecordStore(results).forget(method)} measurements deleted")


def write(store: RecordStore, out: Path, tasks: Mapping[str, Task]) -> None:
    """Update the rows of these tasks in the summary, and plot each task."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "summary.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    for name, task in tasks.items():
        found = summarise(task, store.records.values())
        if found:
            rows = [row for row in rows if row["task"] != name] + found
            plots.draw(name, found, out / f"{name}.png")
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_atomic(file, f"[\n{lines}\n]\n".encode())
    typer.echo(f"{file}: {len(rows)} rows")


if __name__ == "__main__":
    app()
