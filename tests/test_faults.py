"""Faults during training: one line names the fault, and the resumed run equals an uninterrupted one to the bit."""

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from forked import Fault, assert_resumes, contents, error_line, finish, good, start, words
from launching import assert_same
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of seven steps."""
    folder = tmp_path_factory.mktemp("straight")
    assert finish(words(folder / "run"), folder / "log") == 0, (folder / "log").read_text()
    return folder / "run"


def test_killed_at_every_stage_of_a_save(straight: Path, tmp_path: Path) -> None:
    """The checkpoint of step 6 replaces a damaged one, and that of step 2 goes for it.

    The stages, 42 of them: before every call that changes the disk, and within every file's content (`faulty.py`).
    Runs resume from all of what these deaths leave that differs.
    """
    log, run, copies = tmp_path / "log", tmp_path / "run", tmp_path / "copies"
    assert finish(words(run, steps=4), log) == 0, log.read_text()
    expected = contents(run / "checkpoints") | contents(straight / "checkpoints")
    shutil.copytree(run / "checkpoints/step-00000004", run / "checkpoints/step-00000006")
    assert finish(words(run), log, ("die_saving", 6, str(copies))) == 0, log.read_text()
    assert_same(straight, run)
    *killed, whole = sorted(copies.iterdir())
    stages = Counter((copy / "stage").read_text() for copy in killed)
    assert stages["within serialize_file"] == 5  # one a part
    assert stages["within write"] == 2  # recipe and manifest
    assert stages["before fsync"] == 9  # six files, the manifest, the draft, the folder
    assert stages["before replace"] == 2  # the draft, and what is pruned
    assert stages["before unlink"] == 14  # of the damaged one, and of what is pruned
    assert sum(stages.values()) == 42
    seen: list[dict[str, str]] = []
    for copy in [*killed, whole]:
        newest = checkpoints.newest(copy / "checkpoints")
        assert newest
        left = contents(copy / "checkpoints")
        newer = {key: value for key, value in left.items() if key.startswith(newest.name)}
        assert newer == {key: value for key, value in expected.items() if key.startswith(newest.name)}
        if left not in seen:
            seen.append(left)
            assert_resumes(copy, straight, log)
    assert len(seen) > 8


def test_killed_between_a_checkpoint_and_its_image_grid(straight: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    fault = ("die_before_picture", 7, str(run / "checkpoints"))
    assert finish(words(run), log, fault) == -signal.SIGKILL
    assert good(run) == [6, 7]
    assert_resumes(run, straight, log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(straight: Path, tmp_path: Path, number: int) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("signals", 4, number)) == 130
    assert error_line(log) == "sitkit: interrupted; run the same command again to resume"
    assert good(run) == [4, 5]  # with the meters for the logged line of step 6
    assert_resumes(run, straight, log)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ((signal.SIGTERM, signal.SIGTERM), -signal.SIGTERM),
        ((signal.SIGINT, signal.SIGTERM), -signal.SIGTERM),
        ((signal.SIGTERM, signal.SIGINT), 130),
    ],
)
def test_a_second_signal_of_either_kind_ends_at_once(
    straight: Path, tmp_path: Path, numbers: tuple[int, int], code: int
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("signals", 5, *numbers)) == code
    assert good(run) in ([2], [2, 4])  # the checkpoint of step 4 was being written
    assert_resumes(run, straight, log)


@pytest.mark.parametrize(
    "fault",
    [
        ("sitkit.recipes.storage.checkpoints", "save_file"),
        ("json", "dumps"),
        ("os", "replace"),
    ],
    ids=lambda fault: fault[1],
)
def test_a_disk_that_is_full_when_a_checkpoint_is_written(straight: Path, tmp_path: Path, fault: Fault) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("fill_disk", 6, *fault)) == 2
    assert "could not be written" in error_line(log)
    assert "No space left on device; the last good one is step-0000000" in error_line(log)
    assert 4 in good(run)
    assert_resumes(run, straight, log)


def test_a_disk_that_fills_within_a_file(straight: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("limit_files", 6, 30_000)) == 2
    assert "a checkpoint could not be written" in error_line(log)
    assert "File too large" in error_line(log)
    assert good(run) == [2, 4]
    assert_resumes(run, straight, log)


@pytest.mark.parametrize("fault", [("fill_records", 6, "metrics.jsonl"), ("fill_picture", 7)], ids=lambda f: f[0])
def test_a_disk_that_is_full_when_something_else_is_written(straight: Path, tmp_path: Path, fault: Fault) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, fault) == 2
    line = error_line(log)
    assert "cannot be written: No space left on device" in line
    assert ("metrics.jsonl" if "fill_records" in fault else "grids/step-00000007.png") in line
    assert good(run)[-2:] in ([2, 4], [6, 7])
    if (run / "full").exists():
        (run / "full").replace(run / "metrics.jsonl")
    assert_resumes(run, straight, log)


def test_folders_that_cannot_be_made(straight: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "file").touch()
    assert finish(words(tmp_path / "file/run"), log) == 2
    assert error_line(log) == f"sitkit: {tmp_path}/file/run cannot be written: Not a directory"
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (run / "checkpoints").touch()
    assert finish(words(run), other) == 2
    assert "a checkpoint could not be written to" in error_line(other)
    assert "there is none yet" in error_line(other)
    (run / "checkpoints").unlink()
    assert_resumes(run, straight, log)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    run, log, second = tmp_path / "run", tmp_path / "log", tmp_path / "second"
    first = start(words(run, steps=100_000), log)
    assert until(run, 3)
    assert finish(words(run, steps=100_000), second) == 2
    assert error_line(second).startswith(f"sitkit: another process is training in {run}")
    assert until(run, Run(run).metrics()[-1]["step"] + 3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    good(run)
    assert finish(words(run, steps=Run(run).metrics()[-1]["step"] + 2), second) == 0, second.read_text()
    assert "resuming after step" in second.read_text()


def until(run: Path, step: int) -> bool:
    """Wait until a run has recorded a step; return whether it has."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if any(record["step"] >= step for record in Run(run).metrics()):
            return True
        time.sleep(0.02)
    return False
