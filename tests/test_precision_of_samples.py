"""Compiled and bfloat16 sampling: what it changes in the samples, and what is reported about it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from measuring import SMALL, pixels, refused, sets, sitkit, trained
from sitkit.recipes.experiment.field_types import Precision
from sitkit.recipes.experiment.overrides import recipe_from_table
from sitkit.recipes.network.build import load_for_sampling
from sitkit.recipes.network.precision import with_precision
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleGenerator, generate
from sitkit.recipes.sampling.sample_folder import SampleFolder
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.torch_settings import FLOAT32_SETTINGS, deterministic, float32_math
from stepping import made

COUNT, BATCH = 40, 16


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("arithmetic") / "run")


def states(run: Path, *settings: str) -> Tensor:
    """Return the states of a run's samples before rounding."""
    recipe = recipe_from_table(Run(run).recipe().model_dump(mode="json"), ["guidance.scale=1.5", *settings])
    split = replace(recipe.data.build(), decode=lambda x: x)
    network = load_for_sampling(recipe, split, Run(run).latest(), torch.device("cpu"))
    return generate(
        SampleGenerator(network, recipe, split, seed=3), COUNT, torch.arange(COUNT) % 10, batch=BATCH, quiet=True
    ).pixels


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("interval", ["[0.0, 1.0]", "[0.5, 1.0]"])
def test_compiled_samples_are_the_same_and_compiled_for_one_shape_and_for_all(
    run: Path, monkeypatch: pytest.MonkeyPatch, interval: str
) -> None:
    """Calls have 16 rows, the last one 8, and twice as many with guidance."""
    settings = (f"guidance.interval={interval}", "sampler.solver=heun", "sampler.steps=3")
    exact = states(run, *settings)
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter, fullgraph=True))
    torch.testing.assert_close(states(run, *settings, "compute.compile=true"), exact, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 2


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_samples_in_bfloat16_are_near_and_their_states_are_single(run: Path, kind: str) -> None:
    settings = (f"sampler.kind={kind}", "sampler.steps=6")
    exact, rounded = states(run, *settings), states(run, *settings, "sampler.precision=bf16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, rounded.bfloat16().float())
    apart = (rounded - exact).abs()
    assert 0 < apart.mean() < 0.02 * exact.std()


@pytest.mark.parametrize("around", ["highest", "high"])
@pytest.mark.parametrize(
    ("precision", "inside", "of_products"),
    [("float32", torch.float32, "highest"), ("tf32", torch.float32, "high"), ("bf16", torch.bfloat16, "highest")],
)
def test_matmuls_have_the_chosen_precision_and_times_do_not(
    precision: Precision, inside: torch.dtype, of_products: str, around: str
) -> None:
    """The precision of float32 matmuls outside of it does not change."""
    linear, seen = nn.Linear(3, 3), []

    def field(x: Tensor, t: Tensor) -> Tensor:
        product: Tensor = linear(x)
        seen.extend([x.dtype, t.dtype, product.dtype, torch.get_float32_matmul_precision()])
        return product

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(around)
    try:
        output = with_precision(precision, field)(torch.randn(2, 3), torch.rand(2))
        assert torch.get_float32_matmul_precision() == around
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [torch.float32, torch.float32, inside, of_products]
    assert output.dtype == torch.float32


def _old(matmul: str = "highest", cudnn: bool = True) -> None:
    torch.set_float32_matmul_precision(matmul)
    BACKENDS.cudnn.allow_tf32 = cudnn


def _new(place: Any, value: str) -> None:
    place.fp32_precision = value


def _both(old: str, new: str) -> None:
    _old(old)
    _new(BACKENDS.cuda.matmul, new)


BACKENDS: Any = torch.backends
BY_USERS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "the old interface": lambda: _old("high", cudnn=False),
    "bfloat16 on CPUs": lambda: _old("medium"),
    "the new interface": lambda: _new(BACKENDS.cuda.matmul, "tf32"),
    "convolutions alone": lambda: _new(BACKENDS.cudnn.conv, "ieee"),
    "everything": lambda: _new(BACKENDS, "tf32"),
    "both": lambda: _both("high", "ieee"),
}


@pytest.fixture
def _float32_as_before() -> Iterator[None]:
    yield
    _new(BACKENDS, "none")
    _old()
    for place, value in zip(FLOAT32_SETTINGS, ("none", "tf32", "tf32", "none", "none"), strict=True):
        _new(place, value)


@pytest.mark.usefixtures("_float32_as_before")
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
@pytest.mark.parametrize("users", BY_USERS)
def test_float32_ignores_global_settings_of_the_user(users: str, precision: Literal["ieee", "tf32"]) -> None:
    """By either of torch's interfaces, where the older one raises if the two differ; convolutions too."""
    BY_USERS[users]()
    before = [place.fp32_precision for place in FLOAT32_SETTINGS]
    for _ in range(2):
        with float32_math(precision):
            assert [place.fp32_precision for place in FLOAT32_SETTINGS] == [precision] * len(FLOAT32_SETTINGS)
            assert torch.get_float32_matmul_precision() == {"ieee": "highest", "tf32": "high"}[precision]
            assert BACKENDS.cuda.matmul.allow_tf32 == BACKENDS.cudnn.allow_tf32 == (precision == "tf32")
        assert [place.fp32_precision for place in FLOAT32_SETTINGS] == before


def test_nondeterministic_operations_are_refused_under_deterministic() -> None:
    twice, one = torch.tensor([1, 1]), torch.tensor([1.0, 2.0])
    with pytest.raises(UserError, match=r"compute\.deterministic = true: put_ .*; set it to false"), deterministic():
        torch.zeros(2).put_(twice, one)
    with pytest.raises(RuntimeError, match="another"), deterministic():
        raise RuntimeError("another")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("precision", "of_products"), [("float32", "highest"), ("tf32", "high")])
def test_gradients_are_of_the_precision_of_training(precision: Precision, of_products: str) -> None:
    take, batches = made(f"train.precision={precision}")
    seen: list[str] = []
    take.state.network.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))
    next(take.state.network.parameters()).register_hook(  # type: ignore[no-untyped-call]
        lambda _: seen.append(torch.get_float32_matmul_precision())
    )
    take(1, batches(1))
    assert seen == [of_products, of_products]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="of GPUs")
def test_tf32_rounds_matmuls_on_a_gpu() -> None:
    x, w = (torch.randn(256, 256, device="cuda") for _ in "xw")
    exact = x.double() @ w.double()
    field = lambda x, t: x @ w  # noqa: E731
    apart = {one: (with_precision(one, field)(x, x) - exact).abs().max().item() for one in ("float32", "tf32", "bf16")}
    assert apart["float32"] < 1e-4 < apart["tf32"] < apart["bf16"]


def test_a_sample_folder_records_its_precision_and_keeps_it(run: Path, tmp_path: Path) -> None:
    command = ("sample", run, "--num", 20, "--out", tmp_path / "samples")
    code, said = sitkit(*command, *sets("sampler.precision=bf16"))
    assert code == 0, said
    samples = SampleFolder.open(tmp_path / "samples")
    assert samples.content.manifest["precision"] == "bf16"
    assert samples.content.manifest["made_by"]["compiled"] is False
    before = pixels(samples)
    assert "sampler.precision" in refused(*command)
    assert torch.equal(pixels(samples), before)


def test_diverging_samples_are_reported_and_do_not_stop_training(tmp_path: Path) -> None:
    """At pure noise a noise prediction does not determine the data."""
    run = tmp_path / "run"
    broken = ("objective.predict=noise", "sampler.solver=heun", "sampler.interval=[0.0, 1.0]")
    code, said = sitkit("train", "digits", "--out", run, *sets(*SMALL, *broken))
    assert code == 0, said
    assert "no image grid after step 24: " in said
    line = refused("sample", run, "--num", 7, "--seed", 5, "--out", tmp_path / "out")
    assert "sampler.interval or sampler.solver: " in line
    assert "not finite at t = 0" in line
    assert not [*(tmp_path / "out").rglob("*.npz")]
    inside = sets("sampler.interval=[0.001, 1.0]")
    assert sitkit("sample", run, "--num", 7, "--out", tmp_path / "inside", *inside)[0] == 0


@pytest.mark.parametrize("command", ["sample {run} --num 20 --out {out}", "evaluate {run} --out {out}"])
def test_a_missing_compiler_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = command.format(run=run, out=tmp_path / "out").split()
    line = refused(*words, *sets("compute.compile=true"))
    assert "no-such-compiler" in line
    assert "compute.compile" in line
