"""Files in the formats of SiT and DiT with small random networks, and the runs that `convert` makes of them."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from typer.testing import CliRunner

from sitkit.backbones import DiT, SiT, load_dit, load_sit
from sitkit.recipes.cli import app
from sitkit.recipes.cli.common import resample
from sitkit.recipes.network.build import load_network
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleGenerator, generate

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "input_size": 4,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
    "learn_sigma": True,
}
LOADERS: dict[str, Callable[..., SiT | DiT]] = {"sit": load_sit, "dit": load_dit}
HERE = ["--num-heads", 2]


def sitkit(*arguments: object) -> tuple[int, str]:
    """Run a command in this process; return its exit code and its output."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def weights(seed: int = 0, **sizes: Any) -> dict[str, Tensor]:
    """Return random weights that are large enough for every layer to matter."""
    network, generator = SiT(**SIZES | sizes), torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.state_dict()


def save(file: Path, content: Any = None, **sizes: Any) -> Path:
    """Write a file in the format of the official training, or with given content."""
    table = {"model": weights(1, **sizes), "ema": weights(**sizes), "opt": {"state": {}, "param_groups": []}}
    torch.save({**table, "args": argparse.Namespace(image_size=32)} if content is None else content, file)
    return file


def convert(folder: Path, family: str, *more: object, **sizes: Any) -> Run:
    """Return the run of a random network that `sitkit convert` makes."""
    file = save(folder / "official.pt", **sizes)
    code, said = sitkit("convert", file, "--family", family, "--out", folder / "run", *HERE, *more)
    assert code == 0, said
    return Run.find(folder / "run")


def states(run: Run, *settings: str, count: int = 3) -> Tensor:
    """Return the states of samples before they become pixels."""
    recipe = resample(run.recipe(), [*settings], "sampler", "guidance")
    split = recipe.data.build()
    network = load_network(recipe, split, run.latest(), CPU)
    undecoded = replace(split, decode=lambda x: x)
    return generate(SampleGenerator(network, recipe, undecoded, 5), count, torch.arange(count) % 5, quiet=True).pixels
