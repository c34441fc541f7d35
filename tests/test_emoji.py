"""The emoji data set: complete, in order and in colour."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from image_files import assert_images, component
from sitkit.recipes.data import emoji
from sitkit.recipes.data.images import read_all
from sitkit.recipes.data.splits import ImageSubset
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.loop import train


def test_emoji() -> None:
    split = emoji(16)
    assert split.classes == ("symbols", "pictographs", "faces", "transport", "supplement", "extended")
    counts = [torch.bincount(part.labels).tolist() for part in (split.training, split.heldout)]
    whole = [128, 637, 80, 106, 242, 120]
    assert [sum(pair) for pair in zip(*counts, strict=True)] == whole
    assert counts[0] == [round(0.9 * count) for count in whole]
    pixels = read_all(split.training)
    assert torch.equal(pixels, read_all(emoji(16).training))
    assert len(torch.unique(pixels.flatten(1), dim=0)) > 0.98 * len(pixels)
    assert (pixels.flatten(1) < 250).any(1).all()  # none is blank
    corners = pixels[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).float().mean() > 0.97
    faces = pixels[split.training.labels == split.classes.index("faces")].float().mean((0, 2, 3))
    assert faces[0] > faces[2] + 40  # they are yellow
    assert_images(split.heldout, read_all(split.heldout))


@pytest.mark.parametrize("fields", [{"size": 0}, {"split": 0.0}, {"split": 1.0}])
def test_emoji_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^data = emoji: (size|split)[^\n]* got"):
        component("emoji", **fields).build()


def test_emoji_are_in_the_order_of_their_code_points() -> None:
    training = emoji(16).training
    assert isinstance(training, ImageSubset)
    whole = training.images
    assert (whole.labels.diff() >= 0).all()
    faces = read_all(whole)[whole.labels == 2].float()
    red, green, blue = faces[:, :, 5:11, 5:11].mean((2, 3)).unbind(1)  # of U+1F600 and all that follow
    assert (red > 2 * green).nonzero().flatten().tolist()[:2] == [0x08, 0x21]  # the face with horns, the pouting face
    assert (green[:0x08] > blue[:0x08] + 50).all()  # the first eight are yellow


def test_emoji_preset_learns(tmp_path: Path) -> None:
    settings = ["data.size=8", "backbone.hidden_size=16", "backbone.depth=1", "train.steps=3", "train.batch=4"]
    train(read_recipe("emoji", [*settings, "sampler.steps=2"]), tmp_path, torch.device("cpu"), lambda line: None)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 3
    assert last["loss"] < 3
