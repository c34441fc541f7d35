"""Bad input at random: options, keys, TOML, JSON, npz, safetensors and folders, as many cases as are wanted.

    python tests/fuzzing.py --cases 5000 [--seed 7] [--kind npz]

Every case is a command in a fresh copy of a small world, called in this process. It has to end within a time limit
with exit code 0, or with 2 and what is wrong; a traceback, another code and a hang are failures. Case k of a seed is
always the same: `--first k --cases 1` repeats it. Exit code 1 if any failed.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from bad_input import KINDS, Words
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from measuring import trained, written
from sitkit.recipes.cli import app
from sitkit.recipes.experiment.packaged import presets
from sitkit.recipes.runs.run import Run

SECONDS = 30.0
"""Of a case, at most."""
GIBIBYTES = 6
"""Of memory that a case may add."""


@dataclass(frozen=True)
class World:
    """A folder with one example of everything that commands read."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "World":
        """Create the folder: a run, samples, a report, references, a recipe, a sampler, a study, weights and images."""
        folder.mkdir()
        trained(folder / "run", "train.steps=2", "checkpoint.keep=1", "backbone.hidden_size=8", "sampler.steps=2")
        shutil.rmtree(folder / "run" / "grids")
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (24, 1, 8, 8), generator=generator).to(torch.uint8)
        recipe = Run(folder / "run").recipe().model_dump(mode="json")
        samples = written(folder / "samples", pixels, torch.arange(24) % 3, shard=8, recipe=recipe)
        colour = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        np.savez(folder / "images.npz", arr_0=colour, labels=samples.labels.numpy())  # type: ignore[union-attr]
        report = {"numbers": {"a": {"mean": 1.0, "spread": 0.1, "values": [1.0, 1.2]}}, "manifest": {"a": {"b": 1}}}
        (folder / "samples" / "report.json").write_text(json.dumps(report))
        np.savez(folder / "adm.npz", mu=np.zeros(64), sigma=np.eye(64))
        (folder / "recipe.toml").write_text(presets()["digits"])
        (folder / "sampler.toml").write_text('[sampler]\nkind = "sde"\nsteps = 2\n[sampler.w]\nkind = "sigma"\n')
        (folder / "study.toml").write_text('base = "digits"\n[axes]\nw = ["sampler.w=sigma", "sampler.w=kl"]\n')
        save_file({"w": torch.zeros(3, 3), "b": torch.ones(2)}, folder / "weights.safetensors")
        torch.save({"ema": {"w": torch.zeros(3)}}, folder / "weights.pt")
        (folder / "pictures" / "a").mkdir(parents=True)
        for number, image in enumerate(colour[:4]):
            Image.fromarray(np.kron(image, np.ones((4, 4, 1), np.uint8))).save(
                folder / "pictures" / "a" / f"{number}.png"
            )
        return cls(folder)


class Hang(BaseException):
    """A case took too long."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Bound the time and the memory of a case."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GIBIBYTES * 2**30, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, former)


def failure(words: Words) -> str | None:
    """Return the failure of a command, or None if it does its work or refuses its input."""
    try:
        with bounded(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("error")
            result = CliRunner().invoke(app, words)
    except Hang:
        return f"it takes more than {SECONDS:g} s"
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        return "".join(traceback.format_exception(error))
    if "Traceback" in result.output:
        return result.output
    if result.exit_code not in (0, 2):
        return f"exit code {result.exit_code}: {result.output}"
    if result.exit_code == 2 and not ("sitkit: " in result.output or "Error" in result.output):
        return f"it does not say why: {result.output}"
    return None


def case(seed: int, number: int, world: World, kind: str | None) -> tuple[str, Words, str | None]:
    """Return the kind of a case, its arguments, and its failure."""
    chance = random.Random(f"{seed} {number}")
    name = kind or chance.choice([*KINDS])
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "world"
        shutil.copytree(world.folder, copy)
        words = KINDS[name](chance, copy)
        before = os.getcwd()
        os.chdir(copy)
        try:
            return name, words, failure(words)
        finally:
            os.chdir(before)


def main() -> None:
    """Run cases, and print those that fail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=[*KINDS])
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        world = World.make(Path(place) / "world")
        for number in range(given.first, given.first + given.cases):
            kind, words, why = case(given.seed, number, world, given.kind)
            if why is not None:
                failed += 1
                print(f"== case {number} ({kind}): {' '.join(words)[:300]!r}\n{why[-1500:]}", flush=True)
    print(f"{given.cases} cases, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
