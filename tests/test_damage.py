"""Damaged checkpoints: each is named, lost steps are trained again, and no damaged file is overwritten."""

import shutil
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forked import assert_resumes, contents, error_line, finish, words
from sitkit.recipes.cli import app
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of seven steps."""
    folder = tmp_path_factory.mktemp("straight")
    assert finish(words(folder / "run"), folder / "log") == 0, (folder / "log").read_text()
    return folder / "run"


HARMS = ("flip", "cut", "empty", "remove")
FILES: tuple[str, ...] = (
    "ema.safetensors",
    "manifest.json",
    "meters.safetensors",
    "model.safetensors",
    "optimizer.safetensors",
)
FILES += ("recipe.json", "width-0.1.safetensors")


def damage(file: Path, harm: str) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        file.unlink()
    else:
        file.write_bytes({"flip": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[harm])


def test_every_damage_to_every_file_is_named(straight: Path, tmp_path: Path) -> None:
    folder, newest = tmp_path / "checkpoints", tmp_path / "checkpoints/step-00000007"
    assert sorted(file.name for file in (straight / "checkpoints/step-00000007").iterdir()) == sorted(FILES)
    for name in FILES:
        for harm in HARMS:
            shutil.copytree(straight / "checkpoints", folder)
            damage(newest / name, harm)
            said: list[str] = []
            assert checkpoints.newest(folder, said.append) == folder / "step-00000006"
            assert len(said) == 1
            named = said[0].split(" is damaged (")[0]
            assert named == str(newest / name) or (name, harm) == (
                "manifest.json",
                "flip",
            )  # then the file that it describes
            assert said[0].endswith("; the checkpoint before it is used")
            shutil.rmtree(folder)


def test_no_bit_of_a_manifest_can_change_unseen(straight: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000007"
    shutil.copytree(straight / "checkpoints/step-00000007", checkpoint)
    file = checkpoint / "manifest.json"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 7)]) + content[place + 1 :])
        with pytest.raises(UserError, match="is damaged"):
            checkpoints.verify(checkpoint)


@pytest.mark.parametrize("name", ["ema.safetensors", "manifest.json"])
def test_steps_lost_with_a_damaged_checkpoint_are_trained_again(straight: Path, tmp_path: Path, name: str) -> None:
    """Of a run that is over."""
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(straight, run)
    damage(run / "checkpoints/step-00000007" / name, "flip")
    assert_resumes(run, straight, log)
    assert log.read_text().count(" is damaged") == 1
    assert f"step-00000007/{name} is damaged" in log.read_text() or name == "manifest.json"
    assert "resuming after step 6" in log.read_text()


def test_samples_use_the_checkpoint_before_a_damaged_one(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    damage(run / "checkpoints/step-00000007/ema.safetensors", "cut")
    for arguments in (["sample", str(run), "--num", "4", "--out", str(tmp_path / "a.png")], ["evaluate", str(run)]):
        settings = ["--set", "sampler.steps=1"] + (["--set", "evaluation.num=10"] if arguments[0] == "evaluate" else [])
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
    for checkpoint in checkpoints.list_checkpoints(run / "checkpoints"):
        damage(checkpoint / "ema.safetensors", "cut")
    before = contents(run)
    assert finish(words(run), log) == 2
    assert "no checkpoint of" in error_line(log)
    assert f"remove {run / 'checkpoints'} to train from the first step again" in error_line(log)
    assert log.read_text().count("step-00000006/ema.safetensors is damaged") == 1
    assert log.read_text().count("there is no checkpoint before it") == 1
    assert contents(run) == before
    shutil.rmtree(run / "checkpoints")
    assert_resumes(run, straight, log)


def test_pruning_keeps_good_checkpoints_before_damaged_ones(straight: Path, tmp_path: Path) -> None:
    """The checkpoints of steps 4 and 6 are damaged, one is to be retained, and an interrupt follows step 3."""
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(words(run, "checkpoint.keep=3"), log) == 0
    (run / "checkpoints/step-00000007").rename(
        run / "checkpoints/step-00000005"
    )  # under the name of another: damaged, too
    for step in (4, 6):
        damage(run / f"checkpoints/step-0000000{step}/ema.safetensors", "cut")
    assert finish(words(tmp_path / "two", steps=2), log) == 0
    (tmp_path / "two/checkpoints/step-00000002").rename(run / "checkpoints/step-00000002")
    assert finish(words(run, "checkpoint.keep=1"), log, ("signals", 3, signal.SIGTERM)) == 130
    assert checkpoints.newest(run / "checkpoints") == run / "checkpoints/step-00000004"
    assert_resumes(run, straight, log)
