"""Batches of a training step: the same samples for any number of micro-batches, processes and prefetching threads."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sitkit.recipes.data.images import InMemory, to_states
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support import random_streams
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.batches import Batches, MicroBatch, prefetch
from sitkit.recipes.training.loop import train
from sitkit.recipes.training.process_group import ProcessGroup

TINY = ["backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "train.batch=24", "train.steps=6"]
TINY += ["log.every=1", "checkpoint.every=6", "grid.every=100", "sampler.steps=2", "train.label_dropout=0.3"]
FIELDS = ("numbers", "images", "x", "t", "labels", "y")


def tiny(*settings: str) -> Recipe:
    return read_recipe("digits", [*TINY, *settings])


def quiet(line: str) -> None:
    """Ignore a message."""


def parts(recipe: Recipe, step: int, processes: int = 1) -> dict[str, Tensor]:
    """Return the batch of a step, from all processes together."""
    split = recipe.data.build()
    groups = [ProcessGroup(rank, processes, processes) for rank in range(processes)]
    micro_batches = [micro_batch for group in groups for micro_batch in Batches(recipe, split, group)(step)]
    return {name: torch.cat([getattr(micro_batch, name) for micro_batch in micro_batches]) for name in FIELDS}


@pytest.mark.parametrize("step", [1, 38])  # the second takes images of two epochs
@pytest.mark.parametrize("times", ["uniform", "stratified"])
def test_a_step_is_the_same_however_it_is_cut(step: int, times: str) -> None:
    settings = [f"train.times.kind={times}", "train.flip=0.5"]
    whole = parts(tiny(*settings), step)
    assert torch.equal(whole["numbers"], torch.arange(24 * (step - 1), 24 * step))
    for count, processes in ((2, 1), (4, 1), (1, 2), (3, 4)):
        cut = parts(tiny(*settings, f"compute.gradient_accumulation={count}"), step, processes)
        for name in FIELDS:
            assert torch.equal(cut[name], whole[name]), name
    split = tiny().data.build()
    assert torch.equal(whole["labels"], split.training.labels[whole["images"]])
    labelled = whole["y"] != len(split.classes)
    assert torch.equal(whole["y"][labelled], whole["labels"][labelled])
    assert 0 < len(labelled) - labelled.sum() < len(labelled)
    if times == "stratified":
        assert torch.equal((24 * whole["t"]).long(), torch.arange(24))  # one in each share of the batch


@pytest.mark.parametrize(("count", "processes"), [(5, 1), (1, 7), (4, 4)])
def test_a_batch_that_processes_do_not_divide_is_refused_with_one_line(count: int, processes: int) -> None:
    said = (
        rf"^train.batch = 24 must be divisible by processes times compute.gradient_accumulation, {processes} x {count}$"
    )
    with pytest.raises(UserError, match=said):
        parts(tiny(f"compute.gradient_accumulation={count}"), 1, processes)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_requested_fraction_is_flipped(share: float) -> None:
    flips = random_streams.flips(3, torch.arange(40_000), share)
    assert flips.dtype == torch.bool
    assert float(flips.double().mean()) == pytest.approx(share, abs=4 * (share * (1 - share) / 40_000) ** 0.5)


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**40), min_size=1, max_size=40))
def test_flips_are_a_function_of_seed_and_sample_number(seed: int, numbers: list[int]) -> None:
    together = random_streams.flips(seed, torch.tensor(numbers), 0.5)
    alone = [bool(random_streams.flips(seed, torch.tensor([number]), 0.5)) for number in numbers]
    assert together.tolist() == alone
    many = torch.arange(200)
    assert not torch.equal(random_streams.flips(seed, many, 0.5), random_streams.flips((seed + 1) % 2**63, many, 0.5))
    dropped = random_streams.drop_labels(seed, many, torch.zeros_like(many), 1, 0.5).bool()
    assert not torch.equal(random_streams.flips(seed, many, 0.5), dropped)  # independent of the other random streams


def test_images_are_mirrored_exactly_and_nothing_else_changes() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images, numbers = InMemory(pixels, torch.arange(5)), torch.tensor([4, 0, 0, 2])
    flips = torch.tensor([True, False, True, False])
    seen = images.states(numbers, flips, torch.zeros)
    for row, number, flip in zip(seen, numbers, flips, strict=True):
        image = to_states(pixels[number])
        assert torch.equal(row, image.flip(-1) if flip else image)
    plain, some, all_ = (parts(tiny(f"train.flip={share}"), 2) for share in ("0.0", "0.5", "1.0"))
    mirrored = random_streams.flips(0, plain["numbers"], 0.5)
    assert 0 < mirrored.sum() < 24
    expected = torch.where(mirrored[:, None, None, None], plain["x"].flip(-1), plain["x"])
    assert torch.equal(some["x"], expected)
    assert torch.equal(all_["x"], plain["x"].flip(-1))
    assert all(torch.equal(some[name], plain[name]) for name in FIELDS if name != "x")


def make(step: int) -> list[MicroBatch]:
    """Return a step, later steps sooner."""
    time.sleep(0.002 * (12 - step))
    numbers = torch.arange(step)
    return [MicroBatch(numbers, numbers, numbers, numbers, None, None)]


@pytest.fixture
def _no_thread_stays() -> Iterator[None]:
    before = {*threading.enumerate()}
    yield
    left = {*threading.enumerate()} - before
    for thread in left:
        thread.join(5)
    assert not any(thread.is_alive() for thread in left)


@pytest.mark.usefixtures("_no_thread_stays")
@pytest.mark.parametrize("workers", [0, 1, 3, 20])
def test_batches_come_in_order_for_any_number_of_workers(workers: int) -> None:
    came = list(prefetch(make, range(3, 12), workers))
    assert [step for step, _ in came] == [len(micro_batches[0].numbers) for _, micro_batches in came] == [*range(3, 12)]
    assert list(prefetch(make, range(3, 3), workers)) == []


@pytest.mark.usefixtures("_no_thread_stays")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_a_worker_is_raised_at_its_step(workers: int) -> None:
    def fails(step: int) -> list[MicroBatch]:
        if step == 4:
            raise UserError("image 17 is gone")
        return make(step)

    steps = prefetch(fails, range(1, 9), workers)
    assert [next(steps)[0] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(UserError, match="image 17 is gone"):
        next(steps)


@pytest.mark.usefixtures("_no_thread_stays")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetching_is_bounded_by_the_number_of_workers(workers: int) -> None:
    made = []

    def counted(step: int) -> list[MicroBatch]:
        made.append(step)
        return make(step)

    steps = prefetch(counted, range(1, 12), workers)
    for _ in range(4):
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    time.sleep(0.1)
    assert 4 <= max(made) <= 4 + workers


@pytest.mark.usefixtures("_no_thread_stays")
def test_workers_change_no_bit(tmp_path: Path) -> None:
    settings = ("train.flip=0.5", "train.times.kind=stratified", "compute.gradient_accumulation=2")
    for workers in (0, 2):
        train(tiny(*settings, f"compute.workers={workers}"), tmp_path / str(workers), torch.device("cpu"), quiet)
    none, two = (Run(tmp_path / workers) for workers in ("0", "2"))
    for key in ("step", "loss", "loss_by_t", "gradient"):
        assert [record[key] for record in none.metrics()] == [record[key] for record in two.metrics()]
    for part in ("ema", "model", "optimizer"):
        one, other = (checkpoints.load(run.latest(), part) for run in (none, two))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.usefixtures("_no_thread_stays")
def test_training_that_stops_leaves_no_worker(tmp_path: Path) -> None:
    def fails(self: Batches, step: int) -> list[MicroBatch]:
        if step == 3:
            raise UserError("the disk is gone")
        return first(self, step)

    first = Batches.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__call__", fails)
        with pytest.raises(UserError, match="the disk is gone"):
            train(tiny("compute.workers=3"), tmp_path, torch.device("cpu"), quiet)
    assert [record["step"] for record in Run(tmp_path).metrics()] == [1, 2]
