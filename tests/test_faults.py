"""Faults in the middle of training: one line says what was wrong, and the run goes on to the bit."""

import hashlib
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from forked import Fault, finish, goes_on, good, last_words, start, words
from typer.testing import CliRunner

from launching import assert_same
from sitkit.recipes import checkpoints
from sitkit.recipes.cli import app
from sitkit.recipes.problem import Problem
from sitkit.recipes.run import Run


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    assert finish(words(folder / "run"), folder / "log") == 0, (folder / "log").read_text()
    return folder / "run"


def contents(folder: Path) -> dict[str, str]:
    """Return what is in a folder, but for unfinished saves."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and ".tmp" not in str(file.parent)]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_killed_at_every_stage_of_a_save(straight: Path, tmp_path: Path) -> None:
    """The checkpoint of step 6 replaces a damaged one, and that of step 2 goes for it.

    The stages, 42 of them: before every call that changes the disk, and within every file's content (`faulty.py`).
    Runs go on from all of what these deaths leave that differs.
    """
    log, run, copies = tmp_path / "log", tmp_path / "run", tmp_path / "copies"
    assert finish(words(run, steps=4), log) == 0, log.read_text()
    shutil.copytree(run / "checkpoints/step-00000004", run / "checkpoints/step-00000006")
    assert finish(words(run), log, ("die_saving", 6, str(copies))) == 0, log.read_text()
    assert_same(straight, run)
    expected = contents(straight / "checkpoints") | contents(run / "checkpoints")
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
        for one in (newest, copy / "checkpoints/step-00000004"):
            kept = {key: value for key, value in left.items() if key.startswith(one.name)}
            assert kept == {key: value for key, value in expected.items() if key.startswith(one.name)}
        if left not in seen:
            seen.append(left)
            goes_on(copy, straight, log)
    assert len(seen) > 8


def test_killed_between_a_checkpoint_and_its_picture(straight: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    fault = ("die_before_picture", 7, str(run / "checkpoints"))
    assert finish(words(run), log, fault) == -signal.SIGKILL
    assert good(run) == [6, 7]
    goes_on(run, straight, log)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(straight: Path, tmp_path: Path, number: int) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("signals", 4, number)) == 130
    assert last_words(log) == "sitkit: interrupted; the same command goes on from here"
    assert good(run) == [4, 5]  # with what is counted for the record of step 6
    goes_on(run, straight, log)


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
    assert good(run) in ([2], [2, 4])  # that of step 4 was being written
    goes_on(run, straight, log)


@pytest.mark.parametrize(
    "fault",
    [
        ("sitkit.recipes.checkpoints", "save_file"),
        ("sitkit.recipes.checkpoints", "_flush"),
        ("json", "dumps"),
        ("shutil", "rmtree"),
        ("os", "replace"),
    ],
    ids=lambda fault: fault[1],
)
def test_a_disk_that_is_full_when_a_checkpoint_is_written(straight: Path, tmp_path: Path, fault: Fault) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("fill_disk", 6, *fault)) == 2
    assert "could not be written" in last_words(log)
    assert "No space left on device; the last good one is step-0000000" in last_words(log)
    assert 4 in good(run)
    goes_on(run, straight, log)


def test_a_disk_that_takes_no_more_than_a_part_of_a_file(straight: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, ("limit_files", 6, 30_000)) == 2
    assert "a checkpoint could not be written" in last_words(log)
    assert "File too large" in last_words(log)
    assert good(run) == [2, 4]
    goes_on(run, straight, log)


@pytest.mark.parametrize("fault", [("fill_records", 6, "metrics.jsonl"), ("fill_picture", 7)], ids=lambda f: f[0])
def test_a_disk_that_is_full_when_something_else_is_written(straight: Path, tmp_path: Path, fault: Fault) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run), log, fault) == 2
    line = last_words(log)
    assert "cannot be written: No space left on device" in line
    assert ("metrics.jsonl" if "fill_records" in fault else "grids/step-00000007.png") in line
    assert good(run)[-2:] in ([2, 4], [6, 7])
    if (run / "full").exists():
        (run / "full").replace(run / "metrics.jsonl")
    goes_on(run, straight, log)


def test_folders_that_cannot_be_made(straight: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "file").touch()
    assert finish(words(tmp_path / "file/run"), log) == 2
    assert last_words(log) == f"sitkit: {tmp_path}/file/run cannot be written: Not a directory"
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (run / "checkpoints").touch()
    assert finish(words(run), other) == 2
    assert "a checkpoint could not be written to" in last_words(other)
    assert "there is none yet" in last_words(other)
    (run / "checkpoints").unlink()
    goes_on(run, straight, log)


HARMS = {
    "flip": lambda content: (
        content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
    ),
    "cut": lambda content: content[:-1],
    "empty": lambda content: b"",
}
FILES = ("ema.safetensors", "manifest.json", "meters.safetensors", "model.safetensors", "optimizer.safetensors")
FILES += ("recipe.json", "width-0.1.safetensors")


def damage(file: Path, harm: str) -> None:
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes(HARMS[harm](file.read_bytes()))


def test_every_damage_to_every_file_is_named(straight: Path, tmp_path: Path) -> None:
    folder, newest = tmp_path / "checkpoints", tmp_path / "checkpoints/step-00000007"
    assert sorted(file.name for file in (straight / "checkpoints/step-00000007").iterdir()) == sorted(FILES)
    for name in FILES:
        for harm in (*HARMS, "remove"):
            shutil.copytree(straight / "checkpoints", folder)
            damage(newest / name, harm)
            said: list[str] = []
            assert checkpoints.newest(folder, said.append) == folder / "step-00000006"
            assert len(said) == 1
            named = said[0].split(" is damaged (")[0]
            assert named == str(newest / name) or (name, harm) == ("manifest.json", "flip")  # then the file it is of
            assert said[0].endswith("; the checkpoint before it is used")
            shutil.rmtree(folder)


def test_no_bit_of_a_manifest_can_change_unseen(straight: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000007"
    shutil.copytree(straight / "checkpoints/step-00000007", checkpoint)
    file = checkpoint / "manifest.json"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 7)]) + content[place + 1 :])
        with pytest.raises(Problem, match="is damaged"):
            checkpoints.verify(checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_what_was_lost_with_a_damaged_checkpoint_is_trained_again(straight: Path, tmp_path: Path, name: str) -> None:
    """Of a run that is over."""
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(straight, run)
    damage(run / "checkpoints/step-00000007" / name, "flip")
    goes_on(run, straight, log)
    assert log.read_text().count(" is damaged") == 1
    assert f"step-00000007/{name} is damaged" in log.read_text() or name == "manifest.json"
    assert "going on after step 6" in log.read_text()


def test_samples_are_drawn_from_the_checkpoint_before_a_damaged_one(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    damage(run / "checkpoints/step-00000007/ema.safetensors", "cut")
    for arguments in (["sample", str(run), "--num", "4", "--out", str(tmp_path / "a.png")], ["evaluate", str(run)]):
        settings = ["--set", "sampler.steps=1"] + (["--set", "evaluation.num=4"] if arguments[0] == "evaluate" else [])
        result = CliRunner().invoke(app, [*arguments, *settings])
        assert result.exit_code == 0, result.output
        assert result.output.count("step-00000007/ema.safetensors is damaged") == 1
    damage(run / "checkpoints/step-00000006/ema.safetensors", "cut")
    result = CliRunner().invoke(app, ["sample", str(run), "--num", "4", "--out", str(tmp_path / "b.png")])
    assert result.exit_code == 2
    assert "has no good checkpoint" in result.output.splitlines()[-1]


def test_a_run_of_which_all_checkpoints_are_damaged_is_not_written_over(straight: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(straight, run)
    for checkpoint in checkpoints.found(run / "checkpoints"):
        damage(checkpoint / "ema.safetensors", "cut")
    before = contents(run)
    assert finish(words(run), log) == 2
    assert "no checkpoint of" in last_words(log)
    assert f"remove {run / 'checkpoints'} to train from the first step again" in last_words(log)
    assert log.read_text().count("step-00000006/ema.safetensors is damaged") == 1
    assert log.read_text().count("there is no checkpoint before it") == 1
    assert contents(run) == before
    shutil.rmtree(run / "checkpoints")
    goes_on(run, straight, log)


def test_damaged_checkpoints_are_not_kept_instead_of_good_ones(straight: Path, tmp_path: Path) -> None:
    """Those of steps 4 and 6 are damaged, two are kept, and after step 3 comes an interrupt."""
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run, "checkpoint.keep=3"), log) == 0
    shutil.rmtree(run / "checkpoints/step-00000007")
    shutil.copytree(run / "checkpoints/step-00000004", run / "checkpoints/step-00000005")
    for step in (4, 6):
        damage(run / f"checkpoints/step-0000000{step}/ema.safetensors", "cut")
    if not (run / "checkpoints/step-00000002").exists():
        assert finish(words(tmp_path / "two", steps=2), log) == 0
        shutil.copytree(tmp_path / "two/checkpoints/step-00000002", run / "checkpoints/step-00000002")
    assert finish(words(run, "checkpoint.keep=1"), log, ("signals", 3, signal.SIGTERM)) == 130
    newest = checkpoints.newest(run / "checkpoints")
    assert newest
    assert checkpoints.step_of(newest) in (3, 4)
    goes_on(run, straight, log)


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    run, log, second = tmp_path / "run", tmp_path / "log", tmp_path / "second"
    first = start(words(run, steps=100_000), log)
    assert until(run, 3)
    assert finish(words(run, steps=100_000), second) == 2
    assert last_words(second).startswith(f"sitkit: {run} is being trained in by another process")
    assert until(run, Run(run).metrics()[-1]["step"] + 3)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    good(run)
    assert finish(words(run, steps=Run(run).metrics()[-1]["step"] + 2), second) == 0, second.read_text()
    assert "going on after step" in second.read_text()


def until(run: Path, step: int) -> bool:
    """Wait until a run has recorded a step; return whether it has."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if any(record["step"] >= step for record in Run(run).metrics()):
            return True
        time.sleep(0.02)
    return False
