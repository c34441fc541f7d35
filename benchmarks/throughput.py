"""Throughput of sitkit, of a plain implementation of the paper's block, and of the DiT of diffusers.

    python benchmarks/throughput.py run --size S --batch 8
    python benchmarks/throughput.py run --size S --batch 8 --compiled
    python benchmarks/throughput.py run --size XL --batch 32 --mode bf16 --compiled --device cuda
    python benchmarks/throughput.py divide --threads 2
    python benchmarks/throughput.py trade
    python benchmarks/throughput.py grow
    python benchmarks/throughput.py table

`run`, `divide`, `trade` and `grow` append missing measurements to a file. `table` prints them as
docs/benchmarks/throughput.md shows them, and plots the results of `grow`. With `--compiled` all blocks are compiled. If
other programs run on the machine, use one thread: `table` then uses the processor time of the process.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from interleaved import Times, time_interleaved
from scaling import AXES, draw, exponents, setups
from shapes import MODES, SIZES, Setup
from throughput_table import default_clock, describe

from sitkit.recipes.storage.files import write_atomic
from sitkit.recipes.support.errors import UserError

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
RESULTS, OUT = Path("runs/benchmarks/throughput.jsonl"), Path("docs/benchmarks/throughput")
NETWORKS = ("sitkit", "plain", "diffusers")
Results = Annotated[Path, typer.Option(help="The file of measurements.")]
Rounds = Annotated[int, typer.Option(min=1, help="Measurements of each network.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]
Size = Annotated[Literal["S", "B", "L", "XL"], typer.Option(help="Size of the networks, with patch size 2.")]
Batch = Annotated[int, typer.Option(min=1, help="Images per step.")]


def read(file: Path) -> list[dict[str, Any]]:
    """Return all measurements of a file, without an incomplete last line."""
    content = file.read_text() if file.exists() else ""
    return [json.loads(line) for line in content.splitlines(keepends=True) if line.endswith("\n")]


def measure(file: Path, name: str, group: list[Setup], rounds: int, steps: bool = True) -> None:
    """Time a group of setups in turns and append the result, unless the file has it."""
    requested, done = [asdict(setup) for setup in group], read(file)
    if any((one["name"], one["setups"], one["rounds"]) == (name, requested, rounds) for one in done):
        typer.echo(f"{name}: done")
        return
    typer.echo(f"{name}: {rounds} rounds")
    times: list[Times] = time_interleaved(group, rounds, steps, lambda line: typer.echo(f"  {line}"))
    record = {"name": name, "setups": requested, "rounds": rounds, "times": times, "machine": machine(group[0].device)}
    write_atomic(file, "".join(json.dumps(one) + "\n" for one in [*done, record]).encode())


def machine(device: str) -> dict[str, str]:
    """Return device and versions."""
    if device != "cpu":
        return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")] or ["unknown"]
    return {"device": f"{len(names)} cores of {names[0]}", "torch": torch.__version__}


@app.command()
def run(
    size: Size = "S",
    batch: Batch = 8,
    mode: Annotated[Literal["float32", "tf32", "bf16"], typer.Option(help="Precision of matmuls.")] = "float32",
    compiled: Annotated[
        bool, typer.Option(help="Compile the blocks of all three networks; time plain without compilation, too.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = 2,
    rounds: Rounds = 9,
    forward: Annotated[bool, typer.Option("--forward", help="No training steps, which need more memory.")] = False,
    results: Results = RESULTS,
) -> None:
    """Time a forward pass and a training step of each network, and a large matmul, in turns."""
    assert size in SIZES
    assert mode in MODES
    if device != "cpu" and not torch.cuda.is_available():
        raise UserError("there is no GPU: give --device cpu")
    if device == "cpu" and mode == "tf32":
        raise UserError("CPUs do not support tf32: give --mode float32")
    common = Setup("matrix", size, batch, mode=mode, device=device, threads=threads)
    group = [common, *(replace(common, network=name, compiled=compiled) for name in NETWORKS)]
    if compiled:
        group.append(replace(common, network="plain"))
    name = f"SiT-{size}/2, batch {batch}, {mode}{', compiled' if compiled else ''}, {device}, {threads} threads"
    measure(results, name + (", forward" if forward else ""), group, rounds, steps=not forward)


@app.command()
def divide(
    size: Size = "S",
    batch: Batch = 8,
    compiled: Annotated[bool, typer.Option(help="Compile the blocks.")] = False,
    threads: Threads = 2,
    rounds: Rounds = 9,
    results: Results = RESULTS,
) -> None:
    """Time a training step in one process of several threads, and in as many processes of one thread, on CPUs."""
    if batch % threads:
        raise UserError(f"--batch {batch} is not divisible by --threads {threads}")
    one = Setup("sitkit", size, batch, compiled=compiled, threads=threads)
    group = [Setup("matrix", threads=threads), one, replace(one, threads=1, processes=threads)]
    name = f"SiT-{size}/2, batch {batch}, 1 process of {threads} threads and {threads} processes of 1 thread"
    measure(results, f"{name}{', compiled' if compiled else ''}", group, rounds)


@app.command()
def trade(
    size: Size = "S",
    batch: Batch = 16,
    compiled: Annotated[bool, typer.Option(help="Compile the blocks.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Threads = 2,
    rounds: Rounds = 5,
    results: Results = RESULTS,
) -> None:
    """Time a training step as it is, with 4 micro-batches, and with activation checkpointing."""
    one = Setup("sitkit", size, batch, compiled=compiled, device=device, threads=threads)
    saving = [replace(one, micro_batches=4), replace(one, activation_checkpointing=True)]
    group = [replace(one, network="matrix"), one, *saving]
    kind = "memory against time, compiled" if compiled else "memory against time"
    name = f"SiT-{size}/2, batch {batch}, {kind}, {device}, {threads} threads"
    measure(results, name, group, rounds)


@app.command()
def grow(
    axis: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(AXES)}; may be repeated.")] = None,
    threads: Threads = 1,
    rounds: Rounds = 5,
    results: Results = RESULTS,
) -> None:
    """Time forward passes and steps for more tokens, larger batches, more blocks and more processes."""
    for one in axis or AXES:
        if one not in AXES:
            raise UserError(f"no axis '{one}'; known: {', '.join(AXES)}")
        measure(results, f"grow {one}", setups(one, threads), rounds)


@app.command()
def table(
    results: Results = RESULTS,
    out: Annotated[Path, typer.Option(help="The folder of the summary and the plot.")] = OUT,
    clock: Annotated[
        Literal["auto", "wall", "processor"],
        typer.Option(help="Wall-clock or processor time; auto: wall-clock if the machine was quiet."),
    ] = "auto",
) -> None:
    """Print the results, and write them to throughput.json and growth.png."""
    groups = [group | {"clock": default_clock(group) if clock == "auto" else clock} for group in read(results)]
    summary = {}
    for group in groups:
        if not group["name"].startswith("grow"):
            lines, summary[group["name"]] = describe(group)
            typer.echo("\n".join(lines) + "\n")
    grown = {one: group for one in AXES for group in groups if group["name"] == f"grow {one}"}
    found = exponents(grown)
    for row in found:
        typer.echo(" | ".join(("", *map(str, row.values()), "")).strip())
    out.mkdir(parents=True, exist_ok=True)
    if grown:
        draw(grown, out / "growth.png")
    write_atomic(out / "throughput.json", json.dumps({"runs": summary, "growth": found}, indent=1).encode())


if __name__ == "__main__":
    try:
        app()
    except UserError as problem:
        raise SystemExit(f"error: {problem}") from None
