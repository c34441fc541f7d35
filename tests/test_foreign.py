"""Latents in the formats of other projects: the network receives what was written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from image_files import component
from sitkit.recipes.data import edm2, lightningdit
from sitkit.recipes.data.latents import vae
from sitkit.recipes.support.errors import UserError


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the decoder of an autoencoder, and return its arguments."""
    seen: dict[str, Any] = {"latents": []}

    def decoder(source: str, *, scale: float, shift: float = 0.0) -> Callable[[Tensor], Tensor]:
        seen["source"] = source

        def decode(states: Tensor) -> Tensor:
            seen["latents"].append(states / scale + shift)
            return torch.zeros(len(states), 3, 16, 16, dtype=torch.uint8)

        return decode

    monkeypatch.setattr(vae, "decoder", decoder)
    return seen


NONE = torch.zeros(3, dtype=torch.bool)


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Tensor]:
    """Write LightningDiT's files with 5 and 2 latents, and return their content."""
    generator = torch.Generator().manual_seed(0)
    whole = {key: torch.randn(7, 3, 2, 4, generator=generator) * 2 + 1 for key in ("latents", "latents_flip")}
    whole["labels"] = torch.tensor([1, 0, 2, 2, 1, 0, 1])
    for rank, part in enumerate((slice(0, 5), slice(5, 7))):
        piece = {key: tensor[part].contiguous() for key, tensor in whole.items()}
        save_file(piece, tmp_path / f"latents_rank{rank:02}_shard000.safetensors")
    stats = {"mean": torch.tensor([1.0, 2.0, 3.0]), "std": torch.tensor([2.0, 0.5, 1.0])}
    torch.save({key: tensor.reshape(1, 3, 1, 1) for key, tensor in stats.items()}, tmp_path / "latents_stats.pt")
    return whole | stats


def test_lightningdit_is_read_as_written(shards: dict[str, Tensor], tmp_path: Path, decoded: dict[str, Any]) -> None:
    split = lightningdit(str(tmp_path), "mine/vae", multiplier=0.5)
    images, mean, std = split.training, shards["mean"].reshape(3, 1, 1), shards["std"].reshape(3, 1, 1)
    assert split.classes == ("0", "1", "2")
    assert torch.equal(images.labels, shards["labels"])
    assert images.shape == (3, 2, 4)
    for numbers in ([0, 4, 5], [6, 5, 6], [3, 1, 2]):
        at, flips = torch.tensor(numbers), torch.tensor([True, False, True])
        written = torch.where(flips[:, None, None, None], shards["latents_flip"][at], shards["latents"][at])
        assert torch.equal(images.states(at, flips, torch.zeros), (written - mean) / std * 0.5)
    at = torch.tensor([6, 0])
    assert images.read(at).shape == (2, 3, 16, 16)
    split.decode(images.states(at, NONE[:2], torch.zeros).double())
    assert decoded["source"] == "mine/vae"
    for latents in decoded["latents"]:
        torch.testing.assert_close(latents, shards["latents"][at])
    part = lightningdit(str(tmp_path), "mine/vae", split=0.5)
    assert (len(part.training), len(part.heldout)) == (4, 3) or len(part.training) + len(part.heldout) == 7
    assert len(lightningdit(str(tmp_path), "mine/vae", heldout=str(tmp_path)).heldout) == 7


def test_labels_with_gaps_become_consecutive_classes(
    shards: dict[str, Tensor], tmp_path: Path, decoded: dict[str, Any]
) -> None:
    piece = {key: shards[key][:4].clone() for key in ("latents", "latents_flip")}
    for file in tmp_path.glob("*.safetensors"):
        os.remove(file)
    save_file(piece | {"labels": torch.tensor([7, 0, 7, 1000])}, tmp_path / "one.safetensors")
    split = lightningdit(str(tmp_path), "v", heldout=str(tmp_path))
    assert split.classes == ("0", "7", "1000")
    assert split.training.labels.tolist() == split.heldout.labels.tolist() == [1, 0, 1, 2]
    told = f"{tmp_path}: the 3 labels that occur, up to 1000, are the classes, named by their labels"
    assert split.notes == (told,)
    (tmp_path / "more").mkdir()
    torch.save({key: shards[key] for key in ("mean", "std")}, tmp_path / "more/latents_stats.pt")
    save_file(piece | {"labels": torch.tensor([7, 0, 3, 0])}, tmp_path / "more/one.safetensors")
    with pytest.raises(ValueError, match=r"more has the label 3, for which there is no training image"):
        lightningdit(str(tmp_path), "v", heldout=str(tmp_path / "more"))


def test_lightningdit_of_half_precision(shards: dict[str, Tensor], tmp_path: Path, decoded: dict[str, Any]) -> None:
    for file in tmp_path.glob("*.safetensors"):
        os.remove(file)
    half = {key: shards[key].bfloat16() for key in ("latents", "latents_flip")} | {"labels": shards["labels"].int()}
    save_file(half, tmp_path / "one.safetensors")
    images = lightningdit(str(tmp_path), "v").training
    states = images.states(torch.tensor([2]), NONE[:1], torch.zeros)
    mean, std = shards["mean"].reshape(3, 1, 1), shards["std"].reshape(3, 1, 1)
    assert torch.equal(states[0], (half["latents"][2].float() - mean) / std)
    assert images.labels.dtype == torch.int64


class Trap:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("sprung",)


def test_lightningdit_that_cannot_be_used(
    shards: dict[str, Tensor], tmp_path: Path, decoded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(message: str) -> None:
        with pytest.raises(UserError, match=rf"^data = lightningdit: [^\n]*{message}[^\n]*$"):
            component("lightningdit", path=str(tmp_path), vae="v").build()

    good = {key: shards[key] for key in ("latents", "latents_flip", "labels")}
    for message, content in (
        ("has no 'latents_flip'; latents have", {key: good[key] for key in ("latents", "labels")}),
        ("must both be", good | {"latents_flip": good["latents_flip"][:, :, :1].contiguous()}),
        ("must both be", good | {key: good[key][:, :2].contiguous() for key in ("latents", "latents_flip")}),
        ("7 integers", good | {"labels": good["labels"] - 1}),
        ("7 integers", good | {"labels": good["labels"][:6].clone()}),
    ):  # fmt: skip
        save_file(content, tmp_path / "wrong.safetensors")
        refused(message)
    (tmp_path / "wrong.safetensors").write_bytes(b"damaged")
    refused("cannot be read as safetensors")
    torch.save({"mean": Trap(), "std": Trap()}, tmp_path / "latents_stats.pt")
    refused("must hold the tensors mean and std")
    assert not (tmp_path / "sprung").exists()
    os.remove(tmp_path / "latents_stats.pt")
    refused("there is no .*latents_stats.pt")


@pytest.fixture
def moments(tmp_path: Path) -> np.ndarray:
    """Write EDM2's files of five images, and return their content."""
    written = np.random.default_rng(0).random((5, 8, 2, 3), dtype=np.float32)
    names = [f"0000{number % 2}/img-mean-std-{number:08}.npy" for number in range(5)]
    for name, array in zip(names, written, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, array)
    labels = [[name, 10 + number] for number, name in enumerate(names)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    return written[[0, 2, 4, 1, 3]]  # by folder, and then by name


def test_edm2_is_read_as_written(moments: np.ndarray, tmp_path: Path, decoded: dict[str, Any]) -> None:
    split = edm2(str(tmp_path))
    images = split.training
    assert split.classes == ("10", "11", "12", "13", "14")
    assert images.labels.tolist() == [0, 2, 4, 1, 3]
    assert images.shape == (4, 2, 3)
    mean, std = torch.from_numpy(moments).chunk(2, dim=1)
    for at in (torch.tensor([4, 0, 3]), torch.tensor([1, 1, 2])):
        noise = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(int(at.sum())))
        asked: list[tuple[int, ...]] = []

        def of(shape: tuple[int, ...], noise: Tensor = noise, asked: list[tuple[int, ...]] = asked) -> Tensor:
            asked.append(shape)
            return noise

        assert torch.equal(images.states(at, NONE, of), (mean[at] + std[at] * noise) * 0.18215)
        assert asked == [(4, 2, 3)]
    at = torch.tensor([3, 0])
    images.read(at)
    split.decode(mean[at] * 0.18215)
    for latents in decoded["latents"]:
        torch.testing.assert_close(latents, mean[at])
    with pytest.raises(UserError, match=r"flipped images: set train\.flip = 0"):
        images.states(at, torch.tensor([False, True]), torch.zeros)
    other = edm2(str(tmp_path), scale=2.0).training.states(at, NONE[:2], lambda shape: torch.ones(2, *shape))
    assert torch.equal(other, (mean[at] + std[at]) * 2)


def test_edm2_without_labels(moments: np.ndarray, tmp_path: Path, decoded: dict[str, Any]) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    split = edm2(str(tmp_path), split=0.6)
    assert split.classes == ()
    assert (len(split.training), len(split.heldout)) == (3, 2)


def test_edm2_that_cannot_be_used(
    moments: np.ndarray, tmp_path: Path, decoded: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, last = tmp_path / "00000/img-mean-std-00000000.npy", tmp_path / "00001/img-mean-std-00000003.npy"

    def refused(message: str, **fields: Any) -> None:
        with pytest.raises(UserError, match=rf"[^\n]*{message}[^\n]*$"):
            component("edm2", path=str(tmp_path), **fields).build()

    refused("scale is the factor of the latents and must be above 0, got 0.0", scale=0.0)
    refused("there is no folder", heldout=str(tmp_path / "nowhere"))
    images = edm2(str(tmp_path)).training
    for content in (np.zeros((8, 2, 2), np.float32), np.array([Trap()]), np.zeros((8, 2, 3), np.int64)):
        np.save(last, content)
        with pytest.raises(UserError, match=r"img-mean-std-00000003\.npy"):
            images.read(torch.tensor([0, 4]))
    np.save(first, np.zeros((7, 2, 3), np.float32))
    refused("means and standard deviations, .2C, H, W., got")
    np.save(first, np.array([Trap()]))
    refused("img-mean-std-00000000.npy cannot be read")
    assert not (tmp_path / "sprung").exists()
    np.save(first, np.zeros((8, 2, 3), np.float32))
    halves = [[str(file.relative_to(tmp_path)), 0.5] for file in tmp_path.rglob("*.npy")]
    for message, text in (
        ("has no '00000/img", '{"labels": []}'),
        ("must be", '{"labels": 3}'),
        ("must be", "{"),
        ("integers", json.dumps({"labels": halves})),
    ):  # fmt: skip
        (tmp_path / "dataset.json").write_text(text)
        refused(message)
    os.remove(tmp_path / "dataset.json")
    refused("there is no .*dataset.json")
