"""The order of imports: no library imports another, and folders of recipes import in one direction."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
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


FOLDERS = (
    *("support", "storage", "data", "experiment", "runs", "network", "features", "metrics", "plane"),
    *("sampling", "evaluation", "training", "study", "tune", "cli"),
)
"""The folders of `recipes`, from the bottom up: each imports only from those before it."""


def imported_modules(file: Path, modules: dict[str, Path]) -> set[str]:
    """Return the modules of `recipes` that a module imports, at its top or within a function."""
    package = list(file.relative_to(ROOT).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*parts, alias.name])
                found.add(whole if whole in modules else ".".join(parts))
    return found


@pytest.fixture(scope="module")
def arrows() -> dict[str, set[str]]:
    """The modules of `recipes`, each with those that it imports."""
    files = [*(ROOT / "recipes").rglob("*.py")]
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: imported_modules(file, modules) - {name} for name, file in modules.items()}


def test_nothing_lies_loose_in_recipes() -> None:
    assert sorted(file.name for file in (ROOT / "recipes").glob("*.py")) == ["__init__.py", "__main__.py"]
    assert {file.parent.name for file in (ROOT / "recipes").glob("*/__init__.py")} == set(FOLDERS)


def test_folders_of_recipes_import_downwards_only(arrows: dict[str, set[str]]) -> None:
    between = set()
    for module, targets in arrows.items():
        for target in targets:
            start, end = (name.split(".")[1] if "." in name else "" for name in (module, target))
            if start in FOLDERS and start != end:
                assert end in FOLDERS[: FOLDERS.index(start)], f"{module} imports {target}"
                between.add((start, end))
    assert len(between) < 70


def test_modules_of_recipes_import_in_no_circle(arrows: dict[str, set[str]]) -> None:
    TopologicalSorter(arrows).prepare()  # raises CycleError, and names the circle


def test_each_library_can_be_imported_alone() -> None:
    """In forks of one process, which has imported torch alone."""
    code = f"""
import importlib, os, sys, torch
for package in {LIBRARIES}:
    if not os.fork():
        importlib.import_module(f"sitkit.{{package}}")
        print(*sorted({{name.split(".")[1] for name in sys.modules if name.startswith("sitkit.")}}), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == [*LIBRARIES, ""]


def test_training_imports_no_network_of_features() -> None:
    code = (
        "import sys, sitkit.recipes.training.loop\n"
        "from sitkit.recipes.experiment.read_recipe import read_recipe\n"
        "read_recipe('digits')\n"
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
