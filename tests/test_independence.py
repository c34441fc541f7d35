"""The rule that makes it modular: no library imports a sibling."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARIES = ("interpolants", "backbones", "objectives", "samplers")
PACKAGES = (*LIBRARIES, "recipes")


def imports(file: Path) -> list[tuple[int, str]]:
    """Return level and module of every import in a file."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


@pytest.mark.parametrize("package", LIBRARIES)
def test_no_library_imports_sitkit_or_leaves_its_folder(package: str) -> None:
    files = [*(ROOT / package).glob("*.py")]
    assert files
    for file in files:
        for level, module in imports(file):
            assert level <= 1, file
            assert level == 1 or module.split(".")[0] not in ("sitkit", *PACKAGES), (file, module)


def test_recipes_import_the_libraries_by_their_public_names() -> None:
    for file in (ROOT / "recipes").rglob("*.py"):
        for level, module in imports(file):
            assert level <= len(file.relative_to(ROOT).parents) - 1, file
            if level == 0 and module.startswith("sitkit"):
                assert module.count(".") == 1 or module == "sitkit.objectives.quantities", (file, module)


@pytest.mark.parametrize("package", LIBRARIES)
def test_each_library_can_be_imported_alone(package: str) -> None:
    code = (
        f"import sys, sitkit.{package}\n"
        "print(*sorted({name.split('.')[1] for name in sys.modules if name.startswith('sitkit.')}))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [package]


def test_training_imports_no_network_of_features() -> None:
    code = (
        "import sys, sitkit.recipes.train.loop\n"
        "from sitkit.recipes.reading import read\n"
        "read('digits')\n"
        "start = 'sitkit.recipes.features.'\n"
        "print(*sorted(name.removeprefix(start) for name in sys.modules if name.startswith(start)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["pixels", "protocol"]


def test_the_command_line_answers_without_torch() -> None:
    code = "import sys, sitkit.recipes.cli\nassert not {'torch', 'pydantic', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_files_stay_small(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert len(file.read_text().splitlines()) <= 250, file
