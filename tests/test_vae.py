"""Autoencoders: loaded completely or refused, and identified by their weights."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latent_caches import small
from sitkit.recipes.data.latents import vae
from sitkit.recipes.support.errors import UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("vae") / "small", seed=0)


def test_the_latents_laws_are_those_of_the_weights(autoencoder: Path) -> None:
    model = vae.load(str(autoencoder))
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        mean, log_variance = model.quant_conv(model.encoder(pixels / 127.5 - 1)).chunk(2, dim=1)
    torch.testing.assert_close(vae.encode(model, pixels), torch.cat([mean, (log_variance / 2).exp()], dim=1))


def test_grey_images_are_encoded_as_colour(autoencoder: Path) -> None:
    model = vae.load(str(autoencoder))
    grey = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(vae.encode(model, grey), vae.encode(model, grey.repeat(1, 3, 1, 1)))
    assert vae.latent_shape(model, (1, 8, 10)) == (2, 4, 5)
    for shape in ((2, 8, 8), (3, 9, 8)):
        with pytest.raises(UserError, match="multiples of 2"):
            vae.latent_shape(model, shape)


def test_weights_have_one_fingerprint_however_they_are_laid_out(autoencoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(autoencoder, copy)
    save_file(dict(reversed(load_file(copy / WEIGHTS).items())), copy / WEIGHTS, metadata={"other": "layout"})
    model, other = (vae.load(str(folder)) for folder in (autoencoder, copy))
    assert vae.fingerprint(model) == vae.fingerprint(other)
    with torch.no_grad():
        other.decoder.conv_out.bias += 1
    assert vae.fingerprint(model) != vae.fingerprint(other)
    assert vae.fingerprint(model, vae.ENCODER) == vae.fingerprint(other, vae.ENCODER)
    with torch.no_grad():
        other.quant_conv.bias += 1
    assert vae.fingerprint(model, vae.ENCODER) != vae.fingerprint(other, vae.ENCODER)


def test_the_decoder_is_loaded_when_it_is_first_called(tmp_path: Path) -> None:
    decode = vae.decoder(str(tmp_path / "absent"), scale=1.0)
    with pytest.raises(UserError, match="neither a folder nor the id"):
        decode(torch.zeros(1, 2, 4, 4))


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:3000])


def without_some(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file({name: weight for name, weight in weights.items() if not name.startswith("quant_conv")}, folder / WEIGHTS)


def with_others(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {"other": torch.ones(2)}, folder / WEIGHTS)


def of_another_shape(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {"quant_conv.bias": torch.ones(2)}, folder / WEIGHTS)


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "neither a folder nor the id"),
        (without_config, r"no file named config\.json"),
        (cut, "cannot be loaded"),
        (without_some, r"missing keys .*quant_conv\.weight"),
        (with_others, "unexpected keys other"),
        (of_another_shape, r"size mismatch for quant_conv\.bias"),
        (pickled, "cannot be loaded as safetensors"),
    ],
)
def test_a_missing_or_broken_autoencoder_is_one_line(
    change: Callable[[Path], Any], said: str, autoencoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(autoencoder, folder)
    change(folder)
    with pytest.raises(UserError, match=said) as caught:
        vae.load(str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_without_diffusers_the_extra_is_named(autoencoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'sitkit\[vae\]'"):
        vae.load(str(autoencoder))
