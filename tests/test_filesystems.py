"""File systems without locks, fsync or renaming of folders; and names that point outside a folder."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import SETS, sitkit

from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints, filesystems
from sitkit.recipes.storage.files import path_inside, read_inside
from sitkit.recipes.support.errors import UserError


@pytest.fixture(autouse=True)
def _says_anew() -> None:
    filesystems.warn_once.cache_clear()


def refuse(number: int, when: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a system function that fails with this errno at some calls."""

    def function(*arguments: Any) -> Any:
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return function


def of_folders(descriptor: int) -> bool:
    return Path(f"/proc/self/fd/{descriptor}").is_dir()


def test_training_works_without_locks_flushes_and_renamed_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOTSUP, lambda *_: True, fcntl.flock))
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL, of_folders, os.fsync))
    monkeypatch.setattr(os, "replace", refuse(errno.EMFILE, lambda one, _: Path(one).is_dir(), os.replace))
    words = ["train", "digits", "--out", tmp_path / "run", *SETS, "--set", "checkpoint.keep=1"]
    code, said = sitkit(*words, "--set", "checkpoint.every=8")
    assert code == 0
    for line in ("has no locks", "cannot flush a folder to the disk", "cannot rename folders"):
        assert said.count(line) == (
            2 if line.startswith("cannot flush") else 1
        )  # of the folder of checkpoints, and within one
    folder = tmp_path / "run" / "checkpoints"
    assert [file.name for file in folder.iterdir()] == ["step-00000024"]
    checkpoints.verify(folder / "step-00000024")
    code, said = sitkit(*words, "--set", "train.steps=25")
    assert code == 0
    assert "resuming after step 24" in said


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    with (tmp_path / "a").open("a") as one, (tmp_path / "a").open("a") as other:
        assert filesystems.lock(one)
        assert not filesystems.lock(other)


def test_errors_of_the_disk_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO, lambda _: True, os.fsync))
    with pytest.raises(OSError, match="Input/output"):
        filesystems.fsync(tmp_path)
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC, lambda *_: True, os.replace))
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="No space"):
        filesystems.move_folder(tmp_path / "a", tmp_path / "b", "last")
    with pytest.raises(OSError, match="No space"):
        filesystems.remove_folder(tmp_path / "a", "last")


def test_a_folder_moved_file_by_file_is_complete_only_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "draft" / "sub").mkdir(parents=True)
    for name in ("a", "manifest", "sub/z"):
        (tmp_path / "draft" / name).write_text(name)
    moved: list[str] = []
    real = os.replace

    def replace(one: Path, other: Path) -> None:
        if Path(one).is_dir():
            raise OSError(errno.EMFILE, "Too many open files")
        moved.append(Path(one).name)
        real(one, other)

    monkeypatch.setattr(os, "replace", replace)
    filesystems.move_folder(tmp_path / "draft", tmp_path / "final", "manifest")
    assert moved == ["a", "z", "manifest"]
    assert (tmp_path / "final" / "sub" / "z").read_text() == "sub/z"
    assert not (tmp_path / "draft").exists()


def test_a_system_without_fcntl_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    code, said = sitkit("show", "digits")
    assert code == 2
    assert said == (
        f"sitkit: the commands run on Linux and macOS, and this system ({sys.platform}) has no fcntl: on Windows use "
        "WSL\n"
    )


def test_names_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "a").write_text("a")
    (folder / "sub" / "b").symlink_to(folder / "a")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "disk").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to(folder)
    assert read_inside(folder, "sub/b") == b"a"
    assert read_inside(tmp_path / "link", "a") == b"a"
    for name in (
        "../secret",
        "sub/../../secret",
        str(tmp_path / "secret"),
        "out",
        "circle",
        "disk",
        "a\0b",
        "/dev/zero",
    ):
        with pytest.raises(OSError, match=r"points outside|null byte|loop"):
            path_inside(folder, name)


def test_a_checkpoint_reads_nothing_outside_of_it(tmp_path: Path) -> None:
    draft = checkpoints.create_temporary(tmp_path, 3)
    checkpoints.write(draft, "ema", {"w": torch.zeros(2)})
    whole = checkpoints.finish(draft, {})
    manifest = json.loads((whole / "manifest.json").read_text())
    for key in ("/dev/zero", "../../secret", "/etc/passwd"):
        entry = {"bytes": 0, "sha256": ""}
        (whole / "manifest.json").write_text(json.dumps({**manifest, "files": {**manifest["files"], key: entry}}))
        with pytest.raises(UserError, match="points outside"):
            checkpoints.verify(whole)
    (whole / "manifest.json").write_text(json.dumps(manifest))
    checkpoints.verify(whole)
    (whole / "trained").mkdir()
    os.mkfifo(whole / "trained" / "more.safetensors")
    with pytest.raises(UserError, match="does not list it"):
        checkpoints.verify(whole)
    (whole / "manifest.json").unlink()
    os.mkfifo(whole / "manifest.json")
    with pytest.raises(UserError, match="not a regular file"):
        checkpoints.verify(whole)


def test_a_run_reads_nothing_outside_of_it(tmp_path: Path) -> None:
    recipe = read_recipe("digits")
    with Run.open_for_training(tmp_path / "run", recipe, recipe.data.build()) as run:
        pass
    run.recipe_file.rename(tmp_path / "recipe.json")
    run.recipe_file.symlink_to(tmp_path / "recipe.json")
    with pytest.raises(UserError, match="points outside"):
        run.recipe()
    for file, what in ((run.metrics_file, run.metrics), (run.skipped_file, run.skipped)):
        file.symlink_to("/dev/zero")
        with pytest.raises(UserError, match="points outside"):
            what()
