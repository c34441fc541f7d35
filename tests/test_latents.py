"""Reading caches of latents: sampled states have the right distribution, and damage is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latent_caches import COUNT, Numbered, noise_of, small, write
from sitkit.recipes.data import latents as open_latents
from sitkit.recipes.data.images import to_pixels
from sitkit.recipes.data.latents import vae
from sitkit.recipes.data.latents.reader import verify
from sitkit.recipes.support.errors import UserError


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("vae") / "small", seed=0)


@pytest.fixture(scope="module")
def cache(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cache") / "whole"
    write(out, autoencoder)
    return out


def test_states_are_sampled_by_mean_and_deviation_of_image_or_flip(cache: Path) -> None:
    images = open_latents(str(cache)).training
    moments = torch.from_numpy(np.load(cache / "moments.npy")).float()
    numbers = torch.tensor([5, 0, 20, 5])
    flips = torch.tensor([False, True, True, True])
    drawn = images.states(numbers, flips, lambda shape: noise_of(shape)[numbers])
    eps = noise_of((2, 4, 4))[numbers]
    for row, (number, flip) in enumerate(zip(numbers.tolist(), flips.tolist(), strict=True)):
        mean, std = moments[number, int(flip)].chunk(2)
        assert torch.equal(drawn[row], (mean + std * eps[row]) * 0.18215)
    assert drawn.dtype == torch.float32
    assert images.shape == (2, 4, 4)
    assert len(images) == COUNT
    assert images.labels.tolist() == Numbered().labels.tolist()
    assert not torch.equal(drawn[0], drawn[3])


def test_reading_and_decoding_are_the_autoencoders(cache: Path, autoencoder: Path) -> None:
    split = open_latents(str(cache))
    model = vae.load(str(autoencoder))
    moments = torch.from_numpy(np.load(cache / "moments.npy")).float()
    numbers = torch.tensor([7, 3])
    with torch.no_grad():
        wanted = (127.5 * model.decode(moments[numbers, 0, :2]).sample + 128).clamp(0, 255).floor()
    read = split.training.read(numbers)
    assert read.dtype == torch.uint8
    assert (read - wanted).abs().max() <= 1  # scaling and back rounds
    assert wanted.std() > 5
    states = torch.randn(5, 2, 4, 4)
    whole = split.decode(states)
    parted = vae.decoder(str(autoencoder), scale=0.18215, batch=2)(states)
    assert (whole.int() - parted.int()).abs().max() <= 1
    assert (split.heldout.labels.shape, split.classes) == ((0,), ("a", "b", "c"))


def test_a_shift_is_taken_off_and_put_back(tmp_path: Path) -> None:
    shifted = small(tmp_path / "vae", seed=0, shift_factor=0.5, scaling_factor=2.0)
    write(tmp_path / "out", shifted)
    split = open_latents(str(tmp_path / "out"))
    mean = torch.from_numpy(np.load(tmp_path / "out" / "moments.npy")[:, 0, :2]).float()
    states = split.training.states(
        torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.bool), lambda s: torch.zeros(COUNT, *s)
    )
    torch.testing.assert_close(states, (mean - 0.5) * 2)
    with torch.no_grad():
        wanted = to_pixels(vae.load(str(shifted)).decode(mean).sample)
    assert (split.decode(states).int() - wanted.int()).abs().max() <= 1


def test_only_a_decoder_of_the_encoder_that_encoded_decodes(cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    states = torch.randn(1, 2, 4, 4)
    tuned = vae.load(str(autoencoder))
    with torch.no_grad():
        tuned.decoder.conv_out.bias += 0.5
    tuned.save_pretrained(tmp_path / "tuned")
    assert not torch.equal(
        open_latents(str(cache), vae=str(tmp_path / "tuned")).decode(states), open_latents(str(cache)).decode(states)
    )
    with pytest.raises(UserError, match="other weights than the autoencoder of the latents: its encoder_sha256"):
        open_latents(str(cache), vae=str(small(tmp_path / "other", seed=1))).decode(states)
    moved = tmp_path / "moved"
    shutil.copytree(cache, moved)
    index = (moved / "index.json").read_text()
    (moved / "index.json").write_text(index.replace(str(autoencoder), str(tmp_path / "tuned")))
    with pytest.raises(UserError, match="other weights than the autoencoder of the latents: its sha256"):
        open_latents(str(moved)).decode(states)


def damage(folder: Path, name: str, change: Callable[[bytes], bytes | None]) -> None:
    changed = change((folder / name).read_bytes())
    if changed is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(changed)


def flip_bit(data: bytes) -> bytes:
    place = len(data) - 50
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def index_with(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("moments.npy", lambda data: None, "moments.npy cannot be read"),
        ("labels.npy", lambda data: None, "labels.npy cannot be read"),
        ("moments.npy", lambda data: data[:-2], "moments.npy has"),
        ("labels.npy", lambda data: data[:-8], "labels.npy has"),
        ("labels.npy", flip_bit, "labels.npy is damaged"),
        ("index.json", lambda data: None, "there are no latents"),
        ("index.json", lambda data: data[:50], "not an index of latents"),
        ("index.json", index_with(format=2), "not an index of latents .*format"),
        ("index.json", index_with(count=COUNT - 1), "labels.npy is int64"),
        ("index.json", index_with(latent=[2, 4, 5]), "moments.npy is float16"),
        ("index.json", index_with(classes=["a", "b"]), "labels.npy does not match the index"),
        ("index.json", index_with(files={}), "does not list moments.npy"),
        ("moments.npy", lambda data: b"?" * len(data), "moments.npy is not an array"),
    ],
)
def test_a_damaged_cache_is_refused_by_name(
    name: str, change: Callable[[bytes], bytes | None], said: str, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(cache, folder)
    damage(folder, name, change)
    with pytest.raises(UserError, match=said) as caught:
        open_latents(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bit_of_the_moments_is_found_by_verify(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(cache, folder)
    damage(folder, "moments.npy", flip_bit)
    open_latents(str(folder))
    with pytest.raises(UserError, match=r"moments\.npy is damaged"):
        verify(folder)


def test_a_heldout_cache_must_go_with_the_other(cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    split = open_latents(str(cache), heldout=str(cache))
    assert len(split.heldout) == COUNT
    write(tmp_path / "other", small(tmp_path / "vae", seed=1))
    with pytest.raises(UserError, match="different autoencoders"):
        open_latents(str(cache), heldout=str(tmp_path / "other"))
