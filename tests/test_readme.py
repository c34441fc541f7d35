"""Every block of code in the README and docs runs, and every command exists with its options."""

import re
import shlex
from pathlib import Path

import matplotlib
import pytest
import torch
import typer

from sitkit.recipes.cli import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


SHORTER = {
    "range(1_000)": "range(10)",
    '"train.steps": 1_000': '"train.steps": 10',
    "torch.randn(2_000, 2)": "torch.randn(50, 2)",
    "range(300)": "range(10)",
    "circles(2_000)": "circles(50)",
}
"""Long training and many samples of the pages, and what the test runs instead."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_one_after_the_other(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        short = block
        for long, few in SHORTER.items():
            short = short.replace(long, few)
        exec(compile(short, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page: Path) -> None:
    group = typer.main.get_command(app)
    lines = [line for language in ("sh", "console") for block in blocks(page, language) for line in block.splitlines()]
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["sitkit"]:
            command = group.commands[words[1]]  # type: ignore[attr-defined]
            command.make_context(words[1], words[2:])  # parses; raises on what it does not know
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_pictures_of_the_readme_exist_and_are_small() -> None:
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert shown
    for picture in shown:
        size = (ROOT / picture).stat().st_size
        assert size < (1_000_000 if picture.endswith(".gif") else 300_000), picture
