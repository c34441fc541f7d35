"""Bits per dimension of images by index under an ODE, computed and stored batch by batch.

Batch k of size B has the images k B to k B + B - 1, or up to the last one. Each batch is computed by itself: its bits
depend neither on the process that computes it nor on other batches. A process can be killed at any moment: the other
processes, or the next call, compute what is missing. If the number of images is raised, a last batch that was not full
is computed again with the images added to it; all others are reused.

The batch size has a small effect: the solver's step is as short as the hardest image of the batch needs
(`samplers.adaptive`). Held-out digits of 8x8 pixels, under the trained preset `digits`, differ between batches of 1, 8
and 64 by at most 4e-5 bits per dimension, and their means by less than 2e-5.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from pydantic import ValidationError
from torch import Tensor

from sitkit.samplers import (
    Counted,
    Divergence,
    Exact,
    Field,
    Hutchinson,
    bits_per_dimension,
    dequantise,
    log_likelihood,
)

from ..data.images import Images
from ..storage.files import read_inside, write_atomic
from ..storage.work_partition import TIMEOUT, WorkPartition
from ..support import random_streams
from ..support.errors import UserError
from ..support.progress import progress
from ..support.schema import Section

SOLVER = "dopri5"
VelocityOf: TypeAlias = Callable[[Tensor], Field]
"""Returns the velocity of the ODE for labels (B,)."""


@dataclass(frozen=True)
class BitsEstimator:
    """Computes bits per dimension of images. Its fields are all settings that the bits depend on, except the batches.

    Args:
        interval: the times of the data and of the noise.
        probes: the number of random probes of the divergence, the same at all steps; 0 for the exact divergence.
        seed: of dequantisation and probes, which are functions of the seed and the image's index.
        rtol: the relative error tolerance of the solver.
        atol: the absolute error tolerance of the solver.
    """

    interval: tuple[float, float] = (1.0, 0.0)
    probes: int = 0
    seed: int = 0
    rtol: float = 1e-5
    atol: float = 1e-6

    def __call__(self, velocity: Field, pixels: Tensor, indices: Tensor, device: torch.device) -> Tensor:
        """Return the bits per dimension, (B,) float64 on the CPU, of images (B, C, H, W) uint8 with indices (B,).

        They are an upper bound of the negative log2 probability of the pixels (`samplers.bits_per_dimension`).

        Raises:
            ValueError: the ODE cannot be solved.
        """
        noise = random_streams.uniforms(
            self.seed, random_streams.Stream.DEQUANTISATION, indices, tuple(pixels.shape[1:])
        )
        divergence: Divergence = Hutchinson(self.probes, self.seed, indices) if self.probes else Exact()
        found = log_likelihood(
            velocity,
            dequantise(pixels, noise).to(device),
            interval=self.interval,
            divergence=divergence,
            rtol=self.rtol,
            atol=self.atol,
            method=SOLVER,
        )
        return bits_per_dimension(found.log_prob.double().cpu(), pixels[0].numel())


class BatchBits(Section):
    """The result of a batch: the index of its first image, the bits per dimension of each image, and the NFE."""

    first: int
    bits: tuple[float, ...]
    calls: int

    @property
    def indices(self) -> range:
        """The indices of its images."""
        return range(self.first, self.first + len(self.bits))


@dataclass(frozen=True)
class BitsStore:
    """The results of batches, one per line, in the files `KEY-RANK.jsonl` of a folder, one file per process.

    Incomplete lines are ignored. When all batches are there, `merge_files` writes them to one file, `KEY.jsonl`.

    Args:
        folder: the folder of the files.
        key: a name of everything that the results depend on; files of other keys are ignored.
    """

    folder: Path
    key: str

    def read(self) -> dict[range, BatchBits]:
        """Return the stored results, by the indices of their images.

        Raises:
            UserError: a file cannot be read.
        """
        found: dict[range, BatchBits] = {}
        lines: list[bytes] = []
        try:
            for file in (*self._of_processes(), self.merged_file):  # in this order: the last one may replace the others
                with suppress(FileNotFoundError):
                    lines += read_inside(self.folder, file.name).splitlines()
            for line in lines:
                try:
                    one = BatchBits.model_validate_json(line)
                except ValidationError:
                    continue
                found.setdefault(one.indices, one)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be read: {error.strerror}") from error
        return found

    def write(self, rank: int, result: BatchBits) -> None:
        """Append a result to the file of a process; it is on the disk when this returns.

        Raises:
            UserError: it cannot be written, as when the disk is full.
        """
        try:
            with (self.folder / f"{self.key}-{rank}.jsonl").open("a+b") as stream:
                if stream.seek(0, os.SEEK_END):
                    stream.seek(-1, os.SEEK_END)
                    stream.write(b"\n" * (stream.read(1) != b"\n"))  # ends an incomplete line
                stream.write(result.model_dump_json().encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror}; fix this, and run the same command again"
            ) from error

    def merge_files(self) -> None:
        """Write all results to one file, in the order of their images. Its bytes do not depend on processes and times.

        Call it when no process computes any more.

        Raises:
            UserError: the folder cannot be written.
        """
        if not (files := self._of_processes()):
            return
        found = sorted(self.read().values(), key=lambda one: (one.first, len(one.bits)))
        try:
            write_atomic(self.merged_file, b"".join(one.model_dump_json().encode() + b"\n" for one in found))
            for file in files:
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written: {error.strerror}") from error

    @property
    def merged_file(self) -> Path:
        """The file of all results."""
        return self.folder / f"{self.key}.jsonl"

    def _of_processes(self) -> list[Path]:
        """Return the files of the processes."""
        return sorted(self.folder.glob(f"{self.key}-*.jsonl"))


def batches(num: int, batch: int) -> list[range]:
    """Return the indices of the images of each batch, of `num` images in total."""
    return [range(first, min(first + batch, num)) for first in range(0, num, batch)]


def measure_bits(
    velocity_of: VelocityOf,
    images: Images,
    parts: list[range],
    estimator: BitsEstimator,
    store: BitsStore,
    device: torch.device,
    partition: WorkPartition = WorkPartition(),  # noqa: B008 (it is a value)
) -> None:
    """Compute the batches of this process that are not stored yet.

    Args:
        velocity_of: returns the velocity for labels on `device`.
        images: the images; one batch of them is read at a time.
        parts: the batches of all processes.
        estimator: computes the bits.
        store: where results are stored.
        device: where to compute.
        partition: the part of the work of this process.

    Raises:
        UserError: images cannot be read, do not fit the network, or have no finite bits; or the results cannot
            be written.
    """
    done = store.read()
    mine = [parts[number] for number in partition.assigned(range(len(parts)))]
    left = [part for part in mine if part not in done]
    total, missing = (sum(map(len, some)) for some in (mine, left))
    what = "likelihood" if partition.world_size == 1 else f"likelihood, process 0 of {partition.world_size},"
    with progress(what, total, total - missing, "images", quiet=not partition.is_main) as advance:
        for part in left:
            indices = torch.tensor(part)
            pixels = images.read(indices)
            if pixels.shape[1:] != images.shape:
                raise UserError(f"images are {tuple(pixels.shape[1:])}, but states are {images.shape}: not pixels")
            velocity = Counted(velocity_of(images.labels[indices].to(device)))
            try:
                bits = estimator(velocity, pixels, indices, device)
                if not bits.isfinite().all():
                    raise ValueError(f"image {part[int(bits.isfinite().long().argmin())]} has no finite density")
            except ValueError as error:
                raise UserError(f"images {part[0]} to {part[-1]}: {error}") from error
            store.write(partition.rank, BatchBits(first=part[0], bits=tuple(bits.tolist()), calls=velocity.calls))
            advance(len(part))


def collect_bits(
    parts: list[range], store: BitsStore, partition: WorkPartition, patience: float = TIMEOUT
) -> list[BatchBits]:
    """Return the results of all batches, once all processes have finished.

    Raises:
        UserError: no other process has finished a batch for `patience` seconds.
    """
    patience = patience if partition.world_size > 1 else 0.0
    partition.wait(lambda: len(set(parts) - store.read().keys()), f"batches of {store.folder}", patience)
    found = store.read()
    return [found[part] for part in parts]
