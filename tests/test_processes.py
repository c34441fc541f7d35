"""Process groups, with one process that plays each rank: work partition, devices and precision."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel

from sitkit.recipes.experiment.field_types import Precision
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.network.build import build_network
from sitkit.recipes.network.precision import compile_blocks, with_precision
from sitkit.recipes.sampling.generator import NonFiniteError, SampleGenerator
from sitkit.recipes.storage.work_partition import WorkPartition
from sitkit.recipes.study.local_jobs import Job, JobResult, gpu, run_jobs
from sitkit.recipes.training import fsdp, loop, sample_grid
from sitkit.recipes.training.process_group import ProcessGroup, wrap_ddp
from stepping import TINY, made


@pytest.fixture
def _process_group() -> Iterator[None]:
    """A process group of this process alone, by gloo."""
    dist.init_process_group("gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Member(ProcessGroup):
    """A process group with one process, for which recorded messages stand in for the other ranks."""

    said: ClassVar[dict[int, Any]] = {}

    def gather(self, value: Any) -> list[Any]:
        self.said[self.rank] = value
        return [self.said.get(rank, {}) for rank in range(self.world_size)]


def drawn_by(world: int, drawing: SampleGenerator, labels: Tensor) -> Tensor:
    """Return the images of a grid that `count` processes sample."""
    Member.said = {}
    for rank in reversed(range(world)):  # rank 0 is the last, and receives from all others
        try:
            images = sample_grid.generate_rows(drawing, 10, labels, Member(rank, world), sharded=False)
        except KeyError:  # of rows that others have yet to sample
            assert rank > 0
    return images


def test_a_grid_is_sampled_by_all_processes_and_independent_of_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe("digits", [*TINY, "sampler.steps=3", "guidance.scale=2.0"])
    split = recipe.data.build()
    network = build_network(recipe, split)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    rows: list[int] = []

    class Counting(SampleGenerator):
        def __call__(self, numbers: Tensor, labels: Tensor | None) -> Any:
            rows.append(len(numbers))
            return super().__call__(numbers, labels)

    drawing = Counting(network, recipe, split, seed=3)
    labels = torch.arange(80) % 10
    alone = sample_grid.generate_rows(drawing, 10, labels, ProcessGroup(), sharded=False)
    assert len(set(alone.flatten().tolist())) > 10
    for world in (2, 3, 8, 11):
        rows.clear()
        assert torch.equal(drawn_by(world, drawing, labels), alone)
        assert rows == [10] * 8  # each row once, by any rank
    rows.clear()
    assert torch.equal(sample_grid.generate_rows(drawing, 10, labels, Member(1, 2), sharded=True), alone)
    assert rows == [10] * 8


def test_images_that_diverge_for_one_process_diverge_for_all() -> None:
    class Diverging(SampleGenerator):
        def __init__(self) -> None: ...

        def __call__(self, numbers: Tensor, labels: Tensor | None) -> Any:
            raise NonFiniteError("10 samples are not finite")

    Member.said = {1: {row: NonFiniteError("10 samples are not finite") for row in range(1, 8, 2)}}
    healthy = {row: torch.zeros(10, 1, 8, 8) for row in range(0, 8, 2)}

    class Healthy(Diverging):
        def __call__(self, numbers: Tensor, labels: Tensor | None) -> Any:
            return SimpleNamespace(with_sources=healthy[int(numbers[0]) // 10])

    with pytest.raises(NonFiniteError, match="10 samples"):
        sample_grid.generate_rows(Healthy(), 10, None, Member(0, 2), sharded=False)
    Member.said = {0: healthy}
    with pytest.raises(NonFiniteError, match="10 samples"):
        sample_grid.generate_rows(Diverging(), 10, None, Member(1, 2), sharded=False)


@pytest.mark.parametrize(
    ("local", "gpus", "name", "own"),
    [(None, 4, "cuda", 0), (3, 4, "cuda", 3), (3, 2, "cuda", 1), (3, 1, "cuda", 0), (3, 4, "cuda:2", 2)],
)
def test_each_process_computes_on_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, local: int | None, gpus: int, name: str, own: int
) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", str(local))
    assert WorkPartition().device(torch.device(name)) == torch.device("cuda", own)
    assert current == [torch.device("cuda", own)]
    assert WorkPartition().device(torch.device("cpu")) == torch.device("cpu")
    assert len(current) == 1


def test_jobs_at_once_take_the_gpus_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [gpu(seat)["CUDA_VISIBLE_DEVICES"] for seat in range(3)] == ["0", "1", "0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpu(0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    code = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(.3)"
    ended: list[JobResult] = []
    jobs, log = [Job((key,)) for key in "abcd"], lambda key: tmp_path / f"{key}.txt"
    run_jobs(jobs, 2, lambda keys: [sys.executable, "-c", code], log, ended.append)
    assert [one.failure for one in ended] == [None] * 4
    assert sorted((tmp_path / f"{key}.txt").read_text().strip() for key in "abcd") == ["5", "5", "GPU-7", "GPU-7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu(1) == {}


@pytest.mark.usefixtures("_fresh_compiler", "_process_group")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_a_compiled_block_stays_whole_under_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small gradient buckets torch would split a compiled block at their bounds."""
    counter = CompileCounterWithBackend("eager")
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiler(function, backend=counter))
    take, batches = made()
    network = take.state.network
    with torch._dynamo.config.patch(optimize_ddp=True):
        compile_blocks(network)
        trained = DistributedDataParallel(network, bucket_cap_mb=0.001)
        piece = batches(1)[0]
        trained(piece.x, piece.t, y=piece.y).sum().backward()
    assert counter.frame_count == 1


@pytest.mark.usefixtures("_process_group")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_sharded_weights_are_gathered_as_matmuls_take_them(precision: Precision) -> None:
    """Blocks in bfloat16, all else in float32; outputs, and gradients in float32, are those of unsharded weights."""
    found, kinds = [], []
    for sharded in (False, True):
        take, batches = made(f"train.precision={precision}")
        network: Any = take.state.network
        generator = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
        if sharded:
            fsdp.shard([network], ProcessGroup(), "fsdp", precision)
            block, times = network.blocks[0], network.t_embedder.mlp[0]
            block.attn.register_forward_hook(lambda module, *_: kinds.append(module.qkv.weight.dtype))
            times.register_forward_hook(lambda module, *_: kinds.append(module.weight.dtype))
        piece = batches(1)[0]
        output = with_precision(precision, network)(piece.x, piece.t, y=piece.y)
        output.square().mean().backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad.full_tensor() if sharded else p.grad for p in network.parameters()]
        found.append((output, gradients))
    assert kinds == [torch.float32, torch.bfloat16 if precision == "bf16" else torch.float32]
    (output, gradients), (of_shards, sums) = found
    assert torch.equal(output, of_shards)
    assert all(gradient.dtype == torch.float32 for gradient in sums)
    for one, other in zip(sums, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("_process_group")
def test_ddp_copies_no_buffers_at_each_step() -> None:
    take, _ = made()
    trained = wrap_ddp(take.state.network, take.state.network, ProcessGroup(0, 2))
    assert isinstance(trained, DistributedDataParallel)
    assert not trained.broadcast_buffers


@pytest.mark.parametrize("wanted", [False, True])
def test_training_repeats_to_the_bit_if_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(loop, "_train", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
    recipe = read_recipe("digits", [*TINY, f"compute.deterministic={json.dumps(wanted)}"])
    loop.train(recipe, tmp_path / "run", torch.device("cpu"))
    assert seen == [wanted]
    assert not torch.are_deterministic_algorithms_enabled()
