"""Speed of steps: one compilation, one wait for the device, reused memory, and a GELU that compiles well."""

import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import gelu

from sitkit.backbones.blocks import GELU
from sitkit.recipes.training.batches import MicroBatch
from stepping import CPU, made


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize(
    "more",
    [(), ("compute.activation_checkpointing=true",), ("train.precision=bf16", "compute.gradient_accumulation=2")],
)
def test_steps_are_compiled_once_whole_and_never_again(more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter, fullgraph=True))
    take, batches = made("compute.compile=true", "optimizer.warmup=2", "optimizer.clip=0.1", *more)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in (1, 2, 3):
            assert take(step, batches(step)).nonfinite is None
    assert counter.frame_count == 1


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gelu_compiles_to_the_same_function(dtype: torch.dtype) -> None:
    layer = GELU()
    x = torch.linspace(-12, 12, 4_001).to(dtype).requires_grad_()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    right = gelu(x.double(), approximate="tanh")
    (slope,) = torch.autograd.grad(right.sum(), x)
    accuracy = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 4e-3}[dtype]
    for one in (layer, compiled):
        y = one(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), right, rtol=accuracy, atol=accuracy)
        (mine,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(mine.double(), slope.double(), rtol=4 * accuracy, atol=4 * accuracy)


def test_a_compiled_gelu_has_no_tanh() -> None:
    graphs: list[str] = []

    def look(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph.code)
        return graph

    torch.compile(GELU(), backend=look)(torch.randn(3))
    assert len(graphs) == 1
    assert "sigmoid" in graphs[0]
    assert "gelu" not in graphs[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
@pytest.mark.parametrize("reused", [True, False])
def test_freed_memory_is_reused(reused: bool) -> None:
    program = f"""if True:
        import resource
        from sitkit.recipes.support.allocator import keep_freed_memory
        if {reused}:
            keep_freed_memory()
        def pages():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            b"x" * size
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        size = 100_000_000
        print(pages(), pages())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, again = map(int, done.stdout.split())
    assert (again < first / 4) == reused


def test_a_micro_batch_arrives_complete() -> None:
    _, batches = made()
    piece = batches(1)[0]
    piece = replace(piece, source=piece.x)
    there = piece.to(torch.device("meta"))
    for name, part in vars(piece).items():
        assert getattr(there, name).shape == part.shape
        assert getattr(there, name).dtype == part.dtype
        assert getattr(there, name).is_meta
    bare = MicroBatch(piece.numbers, piece.images, piece.x, piece.t, None, None).to(CPU)
    assert (bare.labels, bare.y, bare.source) == (None, None, None)
    assert torch.equal(bare.x, piece.x)


@pytest.mark.parametrize("norm", [0.5, 2.0])
def test_gradients_below_the_limit_are_not_clipped(norm: float, monkeypatch: pytest.MonkeyPatch) -> None:
    take, batches = made("optimizer.clip=1.0")
    take.backward(batches(1))
    scaled: list[float] = []
    monkeypatch.setattr(torch, "_foreach_mul_", lambda tensors, factor: scaled.append(factor))
    take._update(1, norm)
    assert scaled == ([] if norm < 1 else [pytest.approx(0.5)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="of GPUs")
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_waits_once_for_the_gpu(micro_batches: int) -> None:
    take, batches = made(
        f"compute.gradient_accumulation={micro_batches}", "optimizer.clip=0.1", device=torch.device("cuda")
    )
    for step in (1, 2):
        take(step, batches(step))
    ready = batches(3)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            take(3, ready)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum("synchroniz" in str(one.message) for one in said) == 1
