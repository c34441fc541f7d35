"""The examples: at most twelve lines, valid by `check`, and with a picture."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PARTS = {
    "interpolant": "SquaredCosine",
    "diffusion": "bump",
    "objective": "Difference",
    "one_step": "Ralston",
    "multi_step": "AdamsBashforth",
}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_lines(file: Path, part: str) -> int:
    """Count the lines of a definition with its decorators, without blank lines and docstrings."""
    source = file.read_text()
    (node,) = (one for one in ast.parse(source).body if getattr(one, "name", "") == part)
    assert isinstance(node, ast.ClassDef | ast.FunctionDef)
    first = min(one.lineno for one in (node, *node.decorator_list))
    words = {
        line
        for one in ast.walk(node)
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str)
        for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)
    }
    lines = source.splitlines()
    return sum(bool(lines[k - 1].strip()) for k in range(first, (node.end_lineno or first) + 1) if k not in words)


def test_every_example_is_listed() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == set(PARTS)
    readme = (ROOT / "examples" / "README.md").read_text()
    assert all(f"({name}.py)" in readme and f"examples/{name}.png" in readme for name in PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_an_example_is_short_and_passes_its_check_and_has_a_picture(name: str, tmp_path: Path) -> None:
    assert code_lines(ROOT / "examples" / f"{name}.py", PARTS[name]) <= 12
    module = load(name)
    module.check_component()
    module.plot(tmp_path / "picture.png", **({"steps": 100} if name == "objective" else {}))
    for file in (tmp_path / "picture.png", ROOT / "docs" / "pictures" / "examples" / f"{name}.png"):
        with Image.open(file) as picture:
            assert picture.width > 200
            assert picture.height > 200
            darkest = picture.convert("L").getextrema()[0]
            assert isinstance(darkest, int)
            assert darkest < 100
        assert file.stat().st_size < 300_000
