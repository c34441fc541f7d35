"""Studies that take seconds."""

from pathlib import Path

from typer.testing import CliRunner

from sitkit.recipes.cli import app
from sitkit.recipes.study.grid import StudyGrid, grid_of
from sitkit.recipes.study.study_file import read_study

SMALL = """
base = "digits"
seeds = [3, 5]

[set]
backbone.hidden_size = 16
backbone.depth = 1
backbone.num_heads = 2
train.batch = 16
train.steps = 6
train.patience = 2
evaluation.num = 20
evaluation.draws = 2
evaluation.unguided = false
"""
AXES = """
[axes]
sampler.steps = [2, 3]

[axes.way]
usual = {}
own = { path.kind = "worlds:Quadratic", guidance.scale = 1.5 }

[measure]
numbers = ["Frechet distance of pixels", "share of the wanted class"]
"""


def sitkit(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def grid(folder: Path, text: str) -> StudyGrid:
    return grid_of(read_study(write(folder / "study.toml", text)))
