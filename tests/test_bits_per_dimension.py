"""Bits per dimension: those of a known density, and independent of batches, interruptions and processes."""

import errno
import math
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import Linear
from sitkit.recipes.data.images import InMemory, to_pixels
from sitkit.recipes.evaluation import bits_per_dim
from sitkit.recipes.evaluation.bits_per_dim import (
    BatchBits,
    BitsEstimator,
    BitsStore,
    batches,
    collect_bits,
    measure_bits,
)
from sitkit.recipes.storage.work_partition import WorkPartition
from sitkit.recipes.support import random_streams
from sitkit.recipes.support.errors import UserError
from sitkit.samplers import Counted
from worlds import Field, on_images

CPU = torch.device("cpu")
COUNT, BATCH = 22, 4
WORLD, OTHER = (
    Mixture.isotropic(torch.tensor([[-0.4, 0.1, 0.3, -0.2], [0.2, 0.4, -0.3, 0.1], [0.0, -0.4, 0.2, 0.4]]) * sign, 0.15)
    for sign in (1, -1)
)


def images_of(count: int, seed: int = 0) -> InMemory:
    """Return images of 1x2x2 pixels from one mixture or, every third, from the other."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3 % 2
    x = torch.where(labels[:, None] == 0, WORLD.draw(count, chance), OTHER.draw(count, chance))
    return InMemory(to_pixels(x.reshape(count, 1, 2, 2)), labels)


def velocity_of(labels: Tensor) -> Field:
    """Return the exact velocity of each image's mixture."""
    worlds = [on_images(world.velocity(Linear())) for world in (WORLD, OTHER)]
    even = (labels == 0)[:, None, None, None]
    return lambda x, t: torch.where(even, worlds[0](x, t), worlds[1](x, t))


def found_of(
    folder: Path, images: InMemory, how: BitsEstimator, batch: int = 64, num: int | None = None
) -> list[BatchBits]:
    """Measure images, or resume the measurement, and return its results."""
    folder.mkdir(exist_ok=True)
    store, parts = BitsStore(folder, "key"), batches(num or len(images), batch)
    measure_bits(velocity_of, images, parts, how, store, CPU)
    return collect_bits(parts, store, WorkPartition())


def bits_of(found: list[BatchBits]) -> Tensor:
    return torch.tensor([one for part in found for one in part.bits], dtype=torch.float64)


def test_bits_are_those_of_the_exact_density_and_of_the_bins(tmp_path: Path) -> None:
    images, how = images_of(96), BitsEstimator(seed=3)
    found = bits_of(found_of(tmp_path, images, how))
    numbers = torch.arange(96)
    noise = random_streams.uniforms(3, random_streams.Stream.DEQUANTISATION, numbers, (1, 2, 2)).double()
    x = ((images.pixels + noise - 0.5) / 127.5 - 1).flatten(1)
    each = torch.where(images.labels == 0, WORLD.log_prob(x), OTHER.log_prob(x))
    expected = math.log2(127.5) - each / 4 / math.log(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert abs(float((found - expected).mean())) < 1e-4
    gaps = found - bits_of_bins(images)  # the bin's bits, up to the place of the noise in the bin
    error = float(gaps.std()) / 96**0.5
    assert 1e-4 < error < 5e-3
    assert abs(float(gaps.mean())) < 4 * error


def bits_of_bins(images: InMemory) -> Tensor:
    """Return the negative log-probability of an image's pixels under its mixture, by bins 2/255 wide."""
    edges = (images.pixels.double().flatten(1)[:, None, :, None] + torch.tensor([-0.5, 0.5])) / 127.5 - 1
    logs = []
    for world in (WORLD, OTHER):
        std = world.covariances[0, 0, 0].sqrt()
        low, high = torch.special.ndtr((edges - world.means[None, :, :, None]) / std).unbind(-1)
        logs.append((high - low).prod(2).mean(1).log2())
    return -torch.where(images.labels == 0, logs[0], logs[1]) / 4


def test_estimates_scatter_around_the_exact_bits_and_less_with_more_probes(tmp_path: Path) -> None:
    images = images_of(144)
    exact = bits_of(found_of(tmp_path / "0", images, BitsEstimator()))
    spreads = []
    for probes in (1, 9):
        gaps = bits_of(found_of(tmp_path / str(probes), images, BitsEstimator(probes=probes))) - exact
        spreads.append(float(gaps.std()))
        assert abs(float(gaps.mean())) < 4 * spreads[-1] / 12
    assert spreads[0] > 0.02
    assert spreads[0] / spreads[1] == pytest.approx(3, rel=0.4)


@pytest.mark.parametrize("probes", [0, 2])
def test_bits_of_an_image_do_not_depend_on_its_batch(tmp_path: Path, probes: int) -> None:
    images = images_of(COUNT)
    one, other = (
        bits_of(found_of(tmp_path / str(batch), images, BitsEstimator(probes=probes), batch)) for batch in (BATCH, 64)
    )
    seeded = bits_of(found_of(tmp_path / "seed", images, BitsEstimator(probes=probes, seed=1)))
    torch.testing.assert_close(one, other, rtol=0, atol=5e-4)
    assert (seeded - other).abs().median() > 2e-3


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure all images by one uninterrupted process."""
    folder = tmp_path_factory.mktemp("alone") / "store"
    found_of(folder, images_of(COUNT), BitsEstimator(), BATCH)
    return folder


@pytest.fixture
def straight(alone: Path) -> list[BatchBits]:
    return collect_bits(batches(COUNT, BATCH), BitsStore(alone, "key"), WorkPartition())


class Watched(InMemory):
    """Images that record reads, and stop a process that reads too many."""

    def __init__(self, reads: int | None = None) -> None:
        images = images_of(COUNT)
        super().__init__(images.pixels, images.labels)
        object.__setattr__(self, "seen", [])
        object.__setattr__(self, "reads", reads)

    @property
    def firsts(self) -> list[int]:
        return [numbers[0] for numbers in vars(self)["seen"]]

    def read(self, numbers: Tensor, /) -> Tensor:
        if len(vars(self)["seen"]) == vars(self)["reads"]:
            raise KeyboardInterrupt
        vars(self)["seen"].append(numbers.tolist())
        return super().read(numbers)


def test_an_interrupted_measurement_resumes_with_the_missing_images(straight: list[BatchBits], tmp_path: Path) -> None:
    assert [len(one.bits) for one in straight] == [4, 4, 4, 4, 4, 2]
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        found_of(out, Watched(reads=3), BitsEstimator(), BATCH)
    images = Watched()
    assert found_of(out, images, BitsEstimator(), BATCH) == straight
    assert images.firsts == [12, 16, 20]
    images = Watched(reads=0)
    assert found_of(out, images, BitsEstimator(), BATCH) == straight


def test_a_line_that_was_cut_short_is_none(alone: Path, straight: list[BatchBits], tmp_path: Path) -> None:
    file = shutil.copytree(alone, tmp_path / "cut") / "key-0.jsonl"
    whole = file.read_bytes()
    assert whole.count(b"\n") == 6
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in (last, last + 1, last + 20, len(whole) - 3, len(whole) - 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        images = Watched()
        assert found_of(file.parent, images, BitsEstimator(), BATCH) == straight
        assert images.firsts == ([] if cut == len(whole) - 1 else [20])
    for noise in (
        b"\0" * 40 + b"\n",
        b'{"first": 20, "bits": [NaN, 1.0], "calls": 3}\n',
        b'\xff\n{"first": 20}\n[]\n\n',
    ):
        file.write_bytes(whole[:last] + noise)
        assert found_of(file.parent, Watched(), BitsEstimator(), BATCH) == straight


def test_more_images_only_add(straight: list[BatchBits], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for num, measured in ((8, [0, 4]), (6, [4]), (16, [8, 12]), (8, []), (COUNT, [16, 20])):
        images = Watched()
        found = found_of(out, images, BitsEstimator(), BATCH, num)
        assert images.firsts == measured
        assert sum(len(one.bits) for one in found) == num
    assert found == straight


def test_result_files_have_the_same_bytes_for_any_number_of_processes(
    alone: Path, straight: list[BatchBits], tmp_path: Path
) -> None:
    """One uninterrupted process; or three, of which one was killed within a line, and one that resumed."""
    left, shared = shutil.copytree(alone, tmp_path / "left"), tmp_path / "shared"
    shared.mkdir()
    for number, one in enumerate(reversed(straight[1:])):
        BitsStore(shared, "key").write(number % 3, one)
    with (shared / "key-2.jsonl").open("ab") as stream:
        stream.write(b'{"first": 0, "bi')
    BitsStore(shared, "key").write(0, straight[0])
    for folder in (left, shared):
        BitsStore(folder, "key").merge_files()
        assert {*BitsStore(folder, "key").read().values()} == {*straight}
        assert [file.name for file in folder.iterdir()] == ["key.jsonl"]
    assert (left / "key.jsonl").read_bytes() == (shared / "key.jsonl").read_bytes()
    images = Watched()
    assert found_of(shared, images, BitsEstimator(), BATCH) == straight
    assert images.firsts == []


def test_nfe_is_counted_batch_by_batch(straight: list[BatchBits], tmp_path: Path) -> None:
    counted: list[Counted] = []

    def watched(labels: Tensor) -> Field:
        counted.append(Counted(velocity_of(labels)))
        return counted[-1]

    measure_bits(watched, images_of(COUNT), batches(COUNT, BATCH), BitsEstimator(), BitsStore(tmp_path, "key"), CPU)
    assert [one.calls for one in straight] == [field.calls for field in counted]


def test_two_processes_find_the_same_as_one(straight: list[BatchBits], tmp_path: Path) -> None:
    store, parts, seen = BitsStore(tmp_path / "out", "key"), batches(COUNT, BATCH), {}
    (tmp_path / "out").mkdir()

    def work(partition: WorkPartition) -> None:
        images = Watched()
        measure_bits(velocity_of, images, parts, BitsEstimator(), store, CPU, partition)
        seen[partition.rank] = images.firsts

    threads = [threading.Thread(target=work, args=(WorkPartition(rank, 2),)) for rank in (1, 0)]
    for thread in threads:
        thread.start()
    assert collect_bits(parts, store, WorkPartition(0, 2), patience=60) == straight
    for thread in threads:
        thread.join()
    assert seen == {0: [0, 8, 16], 1: [4, 12, 20]}
    assert sorted(file.name for file in store.folder.iterdir()) == ["key-0.jsonl", "key-1.jsonl"]
    (store.folder / "key-1.jsonl").unlink()
    with pytest.raises(UserError, match=r"3 batches of .* are assigned to other processes"):
        collect_bits(parts, store, WorkPartition(0, 2), patience=0.3)
    images = Watched()
    assert found_of(store.folder, images, BitsEstimator(), BATCH) == straight  # one process resumes where two stopped
    assert images.firsts == [4, 12, 20]


def test_impossible_measurements_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, store = batches(COUNT, BATCH), BitsStore(tmp_path, "key")

    def refused(what: str, velocity: Callable[[Tensor], Field] = velocity_of) -> None:
        with pytest.raises(UserError, match=what) as caught:
            measure_bits(velocity, images_of(COUNT), parts, BitsEstimator(), store, CPU)
        assert "\n" not in str(caught.value)
        assert store.read() == {}

    refused("images 0 to 3: the velocity must be differentiable", lambda labels: lambda x, t: x.detach())
    refused("images 0 to 3: .* cannot go from 1.0 to 0.0", lambda labels: lambda x, t: x / t[0])
    monkeypatch.setattr(
        bits_per_dim, "bits_per_dimension", lambda log_prob, size: log_prob / torch.tensor([1, 1, 0, 1])
    )
    refused("images 0 to 3: image 2 has no finite density")
    monkeypatch.undo()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left on device; fix this, and run the same command"):
        measure_bits(velocity_of, images_of(COUNT), parts, BitsEstimator(), store, CPU)
