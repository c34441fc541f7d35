"""Runs and samples to evaluate, and a feature extractor in place of Inception that notes what it receives."""

import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from typer.testing import CliRunner

from forked import Fork
from sitkit.recipes.cli import app
from sitkit.recipes.features import Features
from sitkit.recipes.sampling.generator import SampleBatch
from sitkit.recipes.sampling.sample_folder import FolderContent, SampleFolder

SMALL = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=8", "sampler.steps=3"]
SMALL += ["optimizer.lr=1e-2", "optimizer.warmup=0", "ema.decay=0.5", "train.steps=24", "log.every=12"]
OF_PIXELS = ("Frechet distance of pixels", "precision", "recall", "kernel distance of pixels")
NOTES = "IMAGES_SEEN"
"""The environment variable with the file in which `Likeness` notes the number of images of each call."""


def sitkit(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def sets(*settings: str) -> list[str]:
    """Return settings as arguments of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def trained(folder: Path, *settings: str, recipe: str | Path = "digits") -> Path:
    """Return a run of a small network whose samples depend on their labels."""
    code, said = sitkit("train", recipe, "--out", folder, *sets(*SMALL, *settings))
    assert code == 0, said
    return folder


def refused(*arguments: object) -> str:
    """Return the one error line of a command."""
    code, said = sitkit(*arguments)
    assert code == 2, said
    (line,) = [line for line in said.splitlines() if line.startswith("sitkit: ")]
    return line


def report_in(folder: Path) -> dict[str, Any]:
    """Return the report that an evaluation wrote."""
    return dict(json.loads((folder / "report.json").read_text()))


def evaluated(*words: object) -> dict[str, Any]:
    """Run an evaluation, whose last argument is its folder, and return its report."""
    code, said = sitkit("evaluate", *words)
    assert code == 0, said
    return report_in(Path(str(words[-1])))


def means(report: dict[str, Any]) -> dict[str, float]:
    """Return the means of the metrics of a report, by name."""
    return {name: number["mean"] for name, number in report["numbers"].items()}


def written(
    folder: Path, pixels: Tensor, labels: Tensor | None = None, shard: int = 4, **manifest: Any
) -> SampleFolder:
    """Write samples of classes that are named by letters."""
    classes = () if labels is None else tuple("abcdefghij"[: int(labels.max()) + 1])
    channels, height, width = pixels.shape[1:]
    image = (channels, height, width)
    samples = SampleFolder(
        folder, FolderContent(count=len(pixels), shard=shard, image=image, classes=classes, manifest=manifest)
    )
    samples.write()
    for number in samples.shards.indices:
        rows = torch.tensor(samples.shards.rows(number))
        samples.put(number, SampleBatch(pixels[rows], None if labels is None else labels[rows], 3, 6))
    return samples


def write_arrays(file: Path, **arrays: Any) -> None:
    """Write an npz."""
    np.savez(file, **arrays)


def states(*folders: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification time and the content of each file of some folders."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


def kill(fork: Fork) -> None:
    """Kill a fork if it has not ended."""
    with suppress(ProcessLookupError):
        os.kill(fork.pid, signal.SIGKILL)


def patience() -> Iterator[float]:
    """Yield random times in seconds that grow, after which a process is killed, until it ends by itself."""
    chance = random.Random(0)
    for number in range(200):
        yield chance.uniform(0.05, 0.15) * 1.3**number


@contextmanager
def noted(file: Path) -> Iterator[list[int]]:
    """Yield a list that on exit contains the number of images of each call of `Likeness`."""
    seen: list[int] = []
    before = os.environ.get(NOTES)
    file.write_text("")
    os.environ[NOTES] = str(file)
    try:
        yield seen
    finally:
        os.environ.pop(NOTES) if before is None else os.environ.update({NOTES: before})
        seen.extend(map(int, file.read_text().split()))


@dataclass(frozen=True)
class Likeness:
    """Projections of pixels, 6 pooled and 4 spatial ones, and probabilities of 5 classes."""

    name: ClassVar[str] = "likeness"
    frechet: ClassVar[str] = "FID"
    kernel: ClassVar[str] = "KID"
    tag: str = "a"

    @property
    def sha256(self) -> str:
        return self.tag * 64

    def __call__(self, pixels: Tensor, /) -> Features:
        if file := os.environ.get(NOTES):
            with open(file, "a") as stream:
                stream.write(f"{len(pixels)}\n")
        x = pixels.flatten(1).double() / 255
        generator = torch.Generator().manual_seed(7)
        found = x @ torch.randn(x.shape[1], 15, generator=generator, dtype=torch.float64) / 4
        return Features(found[:, :6].float(), found[:, 6:10].float(), found[:, 10:].softmax(1).float())


LIKENESS = "evaluation.features=measuring:Likeness"


def pixels(samples: SampleFolder) -> torch.Tensor:
    """Return all pixels of a folder of samples."""
    return samples.read(torch.arange(len(samples)))


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz."""
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
