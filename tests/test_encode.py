"""`sitkit encode`: the cache equals the encoder's output for any number of processes, kills and full disks."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latent_caches import BLOCK, COUNT, SIZE, Numbered, content, killed, noise_of, small, watched, write
from sitkit.recipes.cli.encode_source import encode_source
from sitkit.recipes.data import latents as open_latents
from sitkit.recipes.data.folder import folder
from sitkit.recipes.data.latents import vae
from sitkit.recipes.data.latents.cache import SourceRecord
from sitkit.recipes.data.latents.reader import verify
from sitkit.recipes.support.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("vae") / "small", seed=0)


@pytest.fixture(scope="module")
def cache(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cache") / "whole"
    write(out, autoencoder)
    return out


def test_a_cache_equals_the_output_of_the_encoder(cache: Path, autoencoder: Path) -> None:
    model = import_module("diffusers").AutoencoderKL.from_pretrained(
        autoencoder, use_safetensors=True, low_cpu_mem_usage=False
    )
    moments, labels = (np.load(cache / f"{name}.npy", allow_pickle=False) for name in ("moments", "labels"))
    images = Numbered()
    assert moments.shape == (COUNT, 2, 4, SIZE // 2, SIZE // 2)
    assert moments.dtype == np.float16
    assert labels.tolist() == images.labels.tolist()
    for way, pixels in enumerate((images.pixels, images.pixels.flip(-1))):
        with torch.no_grad():
            law = model.encode(pixels / 127.5 - 1).latent_dist
        direct = torch.cat([law.mean, law.std], 1)
        torch.testing.assert_close(torch.from_numpy(moments[:, way]).float(), direct, rtol=2**-10, atol=1e-6)
    index = json.loads((cache / "index.json").read_text())
    assert index["count"] == COUNT
    assert index["image"] == [3, SIZE, SIZE]
    assert index["scale"] == 0.18215
    assert index["vae"]["sha256"] == vae.fingerprint(model)
    assert not (cache / ".progress").exists()
    verify(cache)


def test_two_processes_write_the_same_as_one(cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    said: dict[int, list[str]] = {}
    numbers: dict[int, list[int]] = {}

    def work(rank: int) -> None:
        model = vae.load(str(autoencoder))
        numbers[rank] = watched(model)
        said[rank] = write(tmp_path / "out", autoencoder, model=model, rank=rank, world_size=2)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(tmp_path / "out") == content(cache)
    blocks = {rank: {number // BLOCK for number in done} for rank, done in numbers.items()}
    assert blocks == {0: {0, 2, 4}, 1: {1, 3, 5}}
    assert said[0][-1].endswith(f"has the latents of {COUNT} images")


def test_a_process_reports_blocks_left_to_other_processes(autoencoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rank 0 has not created"):
        write(tmp_path / "out", autoencoder, rank=1, world_size=2, timeout=0.3)
    with pytest.raises(UserError, match="3 blocks are assigned to other processes"):
        write(tmp_path / "out", autoencoder, rank=0, world_size=2, timeout=0.3)
    with pytest.raises(UserError, match="not finished"):
        open_latents(str(tmp_path / "out"))
    model = vae.load(str(autoencoder))
    numbers = watched(model)
    write(tmp_path / "out", autoencoder, model=model, rank=1, world_size=2)
    assert {number // BLOCK for number in numbers} == {1, 3, 5}
    numbers.clear()
    write(tmp_path / "out", autoencoder, model=model, rank=2, world_size=3)
    assert "already" in write(tmp_path / "out", autoencoder, model=model)[0] or verify(tmp_path / "out")
    assert numbers == []  # other numbers of processes find all blocks done


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_any_moment_it_resumes(cache: Path, autoencoder: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(
        ["torch", "diffusers.models.autoencoders.autoencoder_kl", "sitkit.recipes.data.latents.encode"]
    )
    out, log = tmp_path / "out", tmp_path / "log"
    log.touch()
    for kills in range(13):
        marked = {int(file.stem) for file in (out / ".progress").glob("[0-9]*.json")}
        before = len(log.read_text().splitlines())
        event = chance.randint(1, 40) if kills < 12 else 10**9
        process = start.Process(target=killed, args=(out, autoencoder, log, event))
        process.start()
        process.join(60)
        again = {int(line) // BLOCK for line in log.read_text().splitlines()[before:]}
        assert not marked & again  # finished blocks are not encoded again
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        if not (out / "index.json").exists():
            with pytest.raises(UserError, match=r"not finished|there are no latents"):
                open_latents(str(out))
    assert kills >= 5
    assert process.exitcode == 0
    assert not (out / ".progress").exists()
    assert {name: data for name, data in content(out).items() if not name.startswith(".")} == content(cache)


def test_a_block_cut_short_is_written_again(cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError):
        write(out, autoencoder, rank=0, world_size=2, timeout=0.0)
    with (out / "moments.npy").open("r+b") as stream:
        stream.seek(-100, os.SEEK_END)  # in block 5, which has no marker
        stream.write(b"half a block")
    (out / ".progress" / "00000002.json").write_text("")  # as a disk may leave it when power fails
    model = vae.load(str(autoencoder))
    numbers = watched(model)
    write(out, autoencoder, model=model)
    assert {number // BLOCK for number in numbers} == {1, 2, 3, 5}
    assert content(out) == content(cache)


def test_a_block_that_was_damaged_meanwhile_is_found_and_encoded_anew(
    cache: Path, autoencoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError):
        write(out, autoencoder, rank=0, world_size=2, timeout=0.0)
    with (out / "moments.npy").open("r+b") as stream:
        stream.seek(200)  # in block 0
        stream.write(b"?")
    with pytest.raises(UserError, match=r"1 blocks of moments\.npy were damaged"):
        write(out, autoencoder)
    write(out, autoencoder)
    assert content(out) == content(cache)


@pytest.mark.parametrize("finished", [False, True])
def test_another_encoding_is_refused_in_a_line(finished: bool, cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if finished:
        shutil.copytree(cache, out)
    else:
        with pytest.raises(UserError):
            write(out, autoencoder, rank=0, world_size=2, timeout=0.0)
    before = content(out)
    other = small(tmp_path / "other", seed=1)
    scaled = small(tmp_path / "scaled", seed=0, scaling_factor=1.0)
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"autoencoder": other}, "another vae "),
        ({"autoencoder": scaled}, "another scale "),
        ({"images": Numbered(size=16)}, r"another image size \(\(3, 8, 8\), now \(3, 16, 16\)\)"),
        ({"source": SourceRecord(description="others", fingerprint="1")}, "another source "),
    )
    for settings, what in changes:
        with pytest.raises(UserError, match=what) as caught:
            write(out, **{"autoencoder": autoencoder, **settings})
        assert "\n" not in str(caught.value)
        assert str(out) in str(caught.value)
    assert content(out) == before


def test_unreadable_images_stop_at_the_end_of_their_block(autoencoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as caught:
        write(out, autoencoder, Numbered(unreadable=(5, 7, 10)))
    assert str(caught.value).splitlines()[1:] == ["  images/5.png is no image", "  images/7.png is no image"]
    model = vae.load(str(autoencoder))
    numbers = watched(model)
    write(out, autoencoder, model=model)  # repaired
    assert min(numbers) == 4


def test_unreadable_images_may_be_left_out_and_are_named(cache: Path, autoencoder: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", Numbered(unreadable=(5, 7, 10))
    with pytest.raises(UserError):
        write(out, autoencoder, bad)
    said = write(out, autoencoder, bad, unreadable="skip", rank=0, world_size=1)
    assert said[-1].endswith("has the latents of 18 images, 3 skipped")
    index = verify(out)
    assert [(one.number, one.reason) for one in index.left_out] == [
        (number, f"images/{number}.png is no image") for number in (5, 7, 10)
    ]
    readable = [number for number in range(COUNT) if number not in (5, 7, 10)]
    split, whole = open_latents(str(out)), open_latents(str(cache))
    assert split.training.labels.tolist() == whole.training.labels[readable].tolist()
    flips, eps = torch.arange(18) % 2 == 0, noise_of((2, 4, 4))[:18]
    states = split.training.states(torch.arange(18), flips, lambda shape: eps)
    expected = whole.training.states(torch.tensor(readable), flips, lambda shape: eps)
    torch.testing.assert_close(states, expected, rtol=1e-3, atol=1e-3)  # other batches, other roundings
    assert np.isnan(np.load(out / "moments.npy")[[5, 7, 10]]).all()


def test_a_class_of_which_all_images_were_left_out_is_none(autoencoder: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", tuple(range(1, COUNT, 3))
    write(out, autoencoder, Numbered(unreadable=bad), unreadable="skip", rank=0, world_size=1)
    split = open_latents(str(out))
    assert split.classes == ("a", "c")
    assert split.training.labels.tolist() == [number % 3 // 2 for number in range(COUNT) if number not in bad]
    assert split.notes == (f"{out}: 1 classes have no images and are dropped: b",)


def test_an_image_skipped_once_stops_a_command_that_skips_none(autoencoder: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", Numbered(unreadable=(5,))
    with pytest.raises(UserError, match="blocks are assigned"):
        write(out, autoencoder, bad, unreadable="skip", rank=0, world_size=2, timeout=0.0)
    write(out, autoencoder, bad, unreadable="skip", rank=1, world_size=2)
    with pytest.raises(UserError, match=r"images/5\.png"):
        write(out, autoencoder, bad)
    assert not (out / "index.json").exists()


def test_a_folder_of_other_things_and_a_full_disk_are_refused(
    autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="holds files that are not latents"):
        write(tmp_path, autoencoder)
    needed = COUNT * (2 * 4 * 16 * 2 + 8)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match=rf"needs {needed:,} bytes and its disk has {needed - 1:,} free"):
        write(tmp_path / "out", autoencoder)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=needed))
    write(tmp_path / "out", autoencoder)


def test_a_full_disk_is_reported_and_encoding_resumes(
    cache: Path, autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fail_once)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        write(tmp_path / "out", autoencoder)
    write(tmp_path / "out", autoencoder)
    assert content(tmp_path / "out") == content(cache)


def test_values_too_large_for_float16_are_refused(autoencoder: Path, tmp_path: Path) -> None:
    model = vae.load(str(autoencoder))
    model.quant_conv.weight *= 1e9
    with pytest.raises(UserError, match="image 0 are not finite in float16"):
        write(tmp_path / "out", autoencoder, model=model)


def picture_folder(root: Path) -> Path:
    for number in range(6):
        file = root / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * number, dtype=np.uint8)).save(file)
    return root


def test_a_folder_and_the_data_of_a_recipe_are_sources(
    autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    given: dict[str, Any] = {"size": SIZE, "vae": str(autoencoder), "device": CPU, "say": said.append}
    pictures = picture_folder(tmp_path / "pictures")
    (pictures / "b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.png"):
        encode_source(str(pictures), tmp_path / "out", **given)
    encode_source(str(pictures), tmp_path / "out", unreadable="skip", **given)
    split = open_latents(str(tmp_path / "out"))
    assert split.classes == ("a", "b")
    assert split.training.labels.tolist() == [0, 0, 0, 1, 1]
    encode_source("latent_caches:own", tmp_path / "own", **given)
    split = open_latents(str(tmp_path / "own"), heldout=str(tmp_path / "own" / "heldout"))
    assert (len(split.training), len(split.heldout)) == (3, 2)
    assert said[-1].endswith("has the latents of 2 images")
    for source, what in (
        ("{kind = 'digits', split = 2.0}", "split must lie between"),
        ("{kind = 'digits', splt = 0.5}", "splt"),
        ("digitz", "did you mean 'digits'"),
        ("{kind = ", "no TOML"),
    ):
        with pytest.raises(UserError, match=what):
            encode_source(source, tmp_path / "none", **given)
    with pytest.raises(UserError, match="are 28x28, and --size is 8"):
        encode_source("mnist5k", tmp_path / "none", **given)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UserError, match="RANK must lie between"):
        encode_source("digits", tmp_path / "none", **given)


def test_latents_are_those_of_the_images_that_are_there(autoencoder: Path, tmp_path: Path) -> None:
    """An image replaced under its name during encoding is encoded again with its block; a later change is reported."""
    root = picture_folder(tmp_path / "pictures")

    def encode(out: Path) -> list[str]:
        return write(out, autoencoder, folder(str(root), SIZE).training, block=2)  # type: ignore[arg-type]

    def exchange(name: str, grey: int) -> None:
        before = (root / name).stat()
        Image.fromarray(np.full((8, 8, 3), grey, dtype=np.uint8)).save(root / name)
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))

    whole = (root / "b/5.png").read_bytes()
    (root / "b/5.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"5\.png"):
        encode(tmp_path / "half")
    assert len([*(tmp_path / "half/.progress").glob("0*.json")]) == 2
    exchange("a/0.png", 77)
    (root / "b/5.png").write_bytes(whole)
    encode(tmp_path / "half")
    encode(tmp_path / "fresh")
    assert content(tmp_path / "half") == content(tmp_path / "fresh")
    assert encode(tmp_path / "half") == [f"{tmp_path / 'half'} has the latents of 6 images already"]
    shutil.copytree(root, tmp_path / "copied")
    root = tmp_path / "copied"
    assert encode(tmp_path / "half") == [f"{tmp_path / 'half'} has the latents of 6 images already"]
    exchange("b/3.png", 78)
    with pytest.raises(
        UserError, match="has the latents of other images with the same names: remove it to encode these"
    ):
        encode(tmp_path / "half")
