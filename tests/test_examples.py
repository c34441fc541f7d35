"""The examples: custom components, valid by `check`, and applications of a trained run; each short, with a picture."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

from sitkit.recipes import load_recipe, load_run, train

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures" / "examples"


class Application(NamedTuple):
    """An example with a function main(run: str, picture: Path, ...) that prints its figures and writes its picture."""

    lines: int
    """The maximum number of lines of the file, without blank lines and docstrings."""
    short: dict[str, Any]
    """Further arguments of `main`, with which the test takes seconds."""


COMPONENTS = {
    "interpolant": "SquaredCosine",
    "diffusion": "bump",
    "objective": "Difference",
    "one_step": "Ralston",
    "multi_step": "AdamsBashforth",
}
"""Examples of custom components, and the name of the component in each file."""
APPLICATIONS: dict[str, Application] = {
    "editing": Application(lines=70, short={"steps": 2}),
    "posterior_sampling": Application(lines=70, short={"digits": 4, "nfe": 2}),
    "policy_gradient": Application(lines=60, short={"iterations": 1}),
}
"""Examples of what to do with a trained run."""


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_lines(file: Path, part: str | None = None) -> int:
    """Count the lines of a file, or of a definition with its decorators, without blank lines and docstrings."""
    source = file.read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    first, last = 1, len(lines)
    if part is not None:
        (node,) = (one for one in tree.body if getattr(one, "name", "") == part)
        assert isinstance(node, ast.ClassDef | ast.FunctionDef)
        first, last = min(one.lineno for one in (node, *node.decorator_list)), node.end_lineno or node.lineno
    words = {
        line
        for one in ast.walk(tree)
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str)
        for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)
    }
    return sum(bool(lines[k - 1].strip()) for k in range(first, last + 1) if k not in words)


def check_picture(file: Path) -> None:
    with Image.open(file) as picture:
        assert picture.width > 200
        assert picture.height > 200
        darkest = picture.convert("L").getextrema()[0]
        assert isinstance(darkest, int)
        assert darkest < 100
    assert file.stat().st_size < 300_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run on digits with a small network and a few steps of training."""
    small = {"backbone.hidden_size": 32, "backbone.depth": 2, "train.steps": 20, "train.batch": 32}
    settings = small | {"checkpoint.every": 20, "optimizer.lr": 0.02, "optimizer.warmup": 0}
    return str(train(load_recipe("digits", settings), tmp_path_factory.mktemp("run"), say=lambda line: None).folder)


def test_every_example_is_listed() -> None:
    names = {*COMPONENTS, *APPLICATIONS}
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == names
    readme = (ROOT / "examples" / "README.md").read_text()
    assert all(f"({name}.py)" in readme and f"examples/{name}.png" in readme for name in names)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_is_short_and_passes_its_check_and_has_a_picture(name: str, tmp_path: Path) -> None:
    assert code_lines(ROOT / "examples" / f"{name}.py", COMPONENTS[name]) <= 12
    module = load(name)
    module.check_component()
    module.plot(tmp_path / "picture.png", **({"steps": 100} if name == "objective" else {}))
    check_picture(tmp_path / "picture.png")
    check_picture(PICTURES / f"{name}.png")


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_is_short_and_prints_its_figures_and_has_a_picture(
    name: str, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_lines(ROOT / "examples" / f"{name}.py") <= APPLICATIONS[name].lines
    load(name).main(run, tmp_path / "picture.png", **APPLICATIONS[name].short)
    assert capsys.readouterr().out
    check_picture(tmp_path / "picture.png")
    check_picture(PICTURES / f"{name}.png")


def test_policy_gradients_start_with_ratios_of_one_and_raise_the_reward(
    run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    example, trained = load("policy_gradient"), load_run(run, {"guidance.scale": 1, "sampler.steps": 2})
    files = {file: file.read_bytes() for file in Path(run).rglob("*") if file.is_file()}
    gains: list[Tensor] = []
    rewards: list[Tensor] = []

    def ink(images: Tensor, labels: Tensor) -> Tensor:
        rewards.append(images[:, :, :4].mean((1, 2, 3)))
        return rewards[-1]

    def minimum(gain: Tensor, clipped: Tensor) -> Tensor:
        gains.append(gain.detach())
        return torch.where(gain < clipped, gain, clipped)

    monkeypatch.setattr(torch, "minimum", minimum)
    torch.manual_seed(0)
    labels, means = torch.arange(100) % 10, []
    for _ in zip(range(4), example.fine_tune(trained, ink, beta=0.0), strict=False):
        means.append(float(ink(trained.sample(100, labels=labels) / 255, labels).mean()))
    for iteration in range(3):  # of 9 updates, one for each step
        drawn = rewards[2 * iteration + 1].reshape(12, 10)
        advantage = ((drawn - drawn.mean(0)) / drawn.std(0)).flatten()
        torch.testing.assert_close(gains[9 * iteration], advantage, rtol=0, atol=1e-4)
        change = gains[9 * iteration + 8] / gains[9 * iteration] - 1
        assert 1e-4 < change.abs().max() < 1
    assert means[-1] > means[0] + 0.01
    assert all(file.read_bytes() == content for file, content in files.items())
