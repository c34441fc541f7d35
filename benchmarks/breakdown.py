"""Time outside the network: parts of a training step, latent caches as data, and imports.

python benchmarks/breakdown.py step --size S --batch 8
python benchmarks/breakdown.py data
python benchmarks/breakdown.py imports
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from interleaved import time_call
from shapes import CHANNELS, CLASSES, Setup
from torch import Tensor
from workloads import parts, recipe_of

from sitkit.recipes.data.images import Split, to_pixels
from sitkit.recipes.data.latents.reader import CachedLatents
from sitkit.recipes.support import random_streams
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.process_group import ProcessGroup

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch.")]
Batch = Annotated[int, typer.Option(min=1)]
Rounds = Annotated[int, typer.Option(min=1)]
ROUNDS = 7


def interleaved(calls: dict[str, Callable[[], object]], rounds: int, processor: bool) -> dict[str, list[float]]:
    """Return the seconds of each call per round, after one warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            taken = time_call(call)[processor]
            if number:
                times[name].append(taken)
    return times


@app.command()
def step(
    size: Annotated[str, typer.Option(help="S, B, L or XL.")] = "S",
    batch: Batch = 8,
    compiled: Annotated[bool, typer.Option(help="Compile the blocks.")] = False,
    threads: Threads = 1,
    rounds: Rounds = ROUNDS,
) -> None:
    """Print the time of each part of a training step, and the part outside forward and backward."""
    setup = Setup("sitkit", size, batch, compiled=compiled, threads=threads)
    torch.set_num_threads(threads)
    made = parts(setup)
    take, state, seed = made.take, made.state, made.recipe.seed
    micro_batches = made.batches(1)
    micro_batch = micro_batches[0]
    eps = random_streams.noise(seed, random_streams.Stream.NOISE, micro_batch.numbers, take.shape)

    def passes() -> None:
        def field(x: Tensor, t: Tensor) -> Tensor:
            output: Tensor = take.network(x, t, y=micro_batch.y)
            return output

        take.objective(field, micro_batch.x, eps, micro_batch.t).mean().backward()

    passes()
    inner: dict[str, Callable[[], object]] = {
        "data, times, labels": lambda: made.batches(1),
        "noise": lambda: random_streams.noise(seed, random_streams.Stream.NOISE, micro_batch.numbers, take.shape),
        "gradient norm": take.gradient_norm,
        "AdamW": state.optimizer.step,
        "EMA": lambda: state.ema_weights.update(1, state.network.parameters()),
        "logging": lambda: state.meters.sums_by_bin(micro_batch.t, micro_batch.t),
    }
    calls = {"forward and backward": passes, **inner, "whole step": lambda: take(1, made.batches(1))}
    times = interleaved(calls, rounds, processor=threads == 1)
    whole = times["whole step"]
    for name, values in times.items():
        share = statistics.median([one / all_ for one, all_ in zip(values, whole, strict=True)])
        typer.echo(f"{name:22} {statistics.median(values) * 1e3:9.2f} ms {share:7.1%}")
    outside = [sum(times[name][n] for name in inner) / whole[n] for n in range(rounds)]
    typer.echo(f"outside forward and backward: {statistics.median(outside):.1%} of the step")


@app.command()
def data(batch: Batch = 8, count: int = 4096, rounds: Rounds = ROUNDS, threads: Threads = 1) -> None:
    """Print the images/s that a latent cache delivers and that a step of SiT-S/2 consumes."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        moments = np.memmap(Path(folder) / "moments", np.float16, "w+", shape=(count, 2, 2 * CHANNELS, 32, 32))
        moments[:] = np.random.default_rng(0).random((1, *moments.shape[1:]), np.float32)
        labels = torch.arange(count) % CLASSES
        images = CachedLatents(moments, torch.arange(count), labels, 0.18215, 0.0, to_pixels)
        split, setup = Split(images, images, tuple(map(str, range(CLASSES)))), Setup("sitkit", "S", batch)
        batches, made = Batches(recipe_of(setup), split, ProcessGroup()), parts(setup)
        calls: dict[str, Callable[[], object]] = {
            "batches from the cache": lambda: batches(1),
            "step of SiT-S/2": lambda: made.take(1, made.batches(1)),
        }
        times = interleaved(calls, rounds, processor=threads == 1)
    for name, values in times.items():
        typer.echo(f"{name:24} {batch / statistics.median(values):10,.1f} images/s")
    ratios = [slow / fast for fast, slow in zip(*times.values(), strict=True)]
    typer.echo(f"{statistics.median(ratios):.0f} times what the step needs")


@app.command()
def imports(rounds: Rounds = ROUNDS) -> None:
    """Print the time of `sitkit --help` and of importing a library, relative to that of their main import."""
    python = sys.executable
    pairs = {
        "sitkit --help": ([python, "-m", "sitkit.recipes", "--help"], [python, "-c", "import typer"]),
        "import sitkit.interpolants": ([python, "-c", "import sitkit.interpolants"], [python, "-c", "import torch"]),
    }
    for name, (mine, least) in pairs.items():
        runs = {"mine": partial(_run, mine), "least": partial(_run, least)}
        times: dict[str, list[float]] = {key: [] for key in runs}
        for number in range(rounds + 1):
            for key, run in runs.items():
                taken = run()
                if number:
                    times[key].append(taken)
        ratio = statistics.median([a / b for a, b in zip(times["mine"], times["least"], strict=True)])
        typer.echo(f"{name}: {statistics.median(times['mine']):.3f} s, {ratio:.2f} times `{least[-1]}`")


def _run(command: list[str]) -> float:
    """Return the processor seconds of a command."""
    before = _children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _children() - before


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system


if __name__ == "__main__":
    app()
