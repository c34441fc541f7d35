"""Folders of samples: each sample is a function of its number, after any interruption or damage."""

import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import forked
import launching
from measuring import arrays_of, kill, patience, pixels, refused, sets, sitkit, states, trained
from sitkit.recipes.cli.common import resample
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling import sample
from sitkit.recipes.sampling import write_folder as folders
from sitkit.recipes.sampling.image_grid import label_grid
from sitkit.recipes.sampling.labels import Labels
from sitkit.recipes.sampling.sample import SampleRequest
from sitkit.recipes.sampling.sample_folder import SampleFolder
from sitkit.recipes.storage.work_partition import WorkPartition
from sitkit.recipes.support.errors import UserError

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("sampling") / "run")


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> SampleFolder:
    """Return 1100 samples of one uninterrupted command."""
    return put(request_of(run), 1100, tmp_path_factory.mktemp("alone") / "samples", WorkPartition())


def request_of(run: Path, *settings: str, **changed: Any) -> SampleRequest:
    recipe = resample(Run(run).recipe(), [*settings], "sampler", "guidance")
    split = recipe.data.build()
    usual: dict[str, Any] = {"labels": Labels(split.classes), "seed": 0, "batch": 256, "average": "ema"}
    return SampleRequest(Run(run), recipe, split, device=torch.device("cpu"), **usual | changed)


def put(request: SampleRequest, count: int, out: Path, partition: WorkPartition) -> SampleFolder:
    """Generate a process's partition of samples, without waiting for others."""
    checkpoint = request.run.latest()
    samples = folders.open_or_create(out, request.content(checkpoint, count), partition)
    drawing = lambda: request.generator(checkpoint)  # noqa: E731
    folders.generate_missing(samples, drawing, request.labels, batch=request.batch, partition=partition, what="drawing")
    return samples


def shards(samples: SampleFolder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (samples.folder / "shards").iterdir()}


def distinct(found: torch.Tensor) -> int:
    return len({one.numpy().tobytes() for one in found})


def assert_alike(one: torch.Tensor, other: torch.Tensor) -> None:
    """Assert that pixels are within 1 of one another, and nearly all equal."""
    apart = (one.int() - other.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).double().mean() < 0.01


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_a_sample_depends_only_on_its_number(run: Path, tmp_path: Path, kind: str) -> None:
    """Batch and shard size do not matter; other numbers and seeds give other samples."""
    settings = (f"sampler.kind={kind}", *(["sampler.solver=euler_maruyama"] if kind == "sde" else []))
    large = put(request_of(run, *settings), 300, tmp_path / "large", WorkPartition())
    small = put(request_of(run, *settings, batch=37), 300, tmp_path / "small", WorkPartition())
    assert_alike(pixels(large), pixels(small))
    assert torch.equal(large.labels, small.labels)  # type: ignore[arg-type]
    request = request_of(run, *settings)
    draw = request.generator(request.run.latest())
    numbers = torch.tensor([299, 17, 260, 0])
    for number in numbers[:, None]:
        assert_alike(draw(number, number % 10).pixels, large.read(number))
    assert_alike(draw(numbers, numbers % 10).pixels, large.read(numbers))
    same = draw(torch.arange(600), torch.full((600,), 3)).pixels
    assert distinct(same) == 600
    other = put(request_of(run, *settings, seed=1), 20, tmp_path / "other", WorkPartition())
    assert (pixels(other).int() - pixels(large)[:20].int()).abs().amax((1, 2, 3)).min() > 5


def test_a_shard_is_of_any_size(
    alone: SampleFolder, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SHARD", 50)
    samples = put(request_of(run), 120, tmp_path / "samples", WorkPartition())
    assert sorted(shards(samples)) == ["00000000.npz", "00000050.npz", "00000100.npz"]
    monkeypatch.undo()
    grown = put(request_of(run), 160, samples.folder, WorkPartition())  # keeps the size that it has
    assert len(shards(grown)) == 4
    assert_alike(pixels(grown), pixels(alone)[:160])


def test_more_samples_are_those_of_more_at_once(alone: SampleFolder, run: Path, tmp_path: Path) -> None:
    few = put(request_of(run), 700, tmp_path / "samples", WorkPartition())
    whole = {file: state for file, state in states(few.folder).items() if "00000000" in file or "00000256" in file}
    more = put(request_of(run), 1100, tmp_path / "samples", WorkPartition())
    assert shards(more) == shards(alone)
    assert states(few.folder).items() >= whole.items()  # what was whole was not touched
    same = put(request_of(run), 300, tmp_path / "samples", WorkPartition())
    assert len(same) == 1100
    assert shards(same) == shards(alone)


def test_two_partitions_make_the_whole(alone: SampleFolder, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    first = put(request_of(run), 1100, out, WorkPartition(0, 2))
    assert sorted(shards(first)) == ["00000000.npz", "00000512.npz", "00001024.npz"]
    with pytest.raises(
        UserError, match=r"^2 shards of .* are assigned to other processes, and none was finished for 0 s; "
    ):
        folders.wait_for_shards(first, WorkPartition(0, 2), patience=0.1)
    with pytest.raises(UserError, match="lacks 2 of 5 shards: run the same `sitkit sample` again"):
        first.check()
    second = put(request_of(run), 1100, out, WorkPartition(1, 2))
    folders.wait_for_shards(second, WorkPartition(0, 2), patience=0)
    assert shards(second) == shards(alone)
    assert WorkPartition(2, 3).assigned(range(9)) == [2, 5, 8]


def test_processes_wait_for_the_first_to_begin(run: Path, tmp_path: Path) -> None:
    wanted = request_of(run).content(Run(run).latest(), 10)
    with pytest.raises(UserError, match=r"^process 0 has created no samples in .* for 0 s: restart all processes$"):
        folders.open_or_create(tmp_path / "samples", wanted, WorkPartition(1, 2), patience=0.1)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must lie between 0 and WORLD_SIZE - 1, got 2 of 2"),
        ({"RANK": "x"}, "RANK must be a number, got 'x'"),
    ],
)
def test_an_invalid_partition_is_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{said}$"):
        WorkPartition.from_environment()


def test_lost_and_truncated_shards_are_generated_again(alone: SampleFolder, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    shutil.copytree(alone.folder, out)
    files = sorted((out / "shards").iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].write_bytes(b"")
    (out / "shards/.00000768.npz.tmp").write_bytes(b"half")  # a kill leaves such
    unchanged = states(out / "shards").items() - {}.items()
    samples = SampleFolder.open(out)
    assert samples.shards.missing() == [0, 1, 2]
    for shard in (0, 1, 2):
        with pytest.raises(
            UserError, match=r"(lacks 3 of 5 files|is damaged \(.*\): remove it); run the same `sitkit sample"
        ):
            samples.get(shard)
    code, _ = sitkit("sample", run, "--samples", 1100, "--labels", "random", "--out", out)
    assert code == 2  # other labels
    put(request_of(run), 1100, out, WorkPartition())
    assert {name: content for name, content in shards(samples).items() if not name.startswith(".")} == shards(alone)
    assert dict(unchanged).items() >= {file: state for file, state in states(out).items() if "0768" in file}.items()


def test_a_flipped_bit_is_one_line(alone: SampleFolder, tmp_path: Path) -> None:
    shutil.copytree(alone.folder, tmp_path / "samples")
    file = tmp_path / "samples/shards/00000256.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    for command in ("export", "evaluate"):
        line = refused(command, tmp_path / "samples", "--out", tmp_path / "out")
        assert line.startswith(f"sitkit: {file} is damaged (")
        assert line.endswith("): remove it; run the same `sitkit sample` again")
    assert not [*tmp_path.glob("out/*.*")]


def test_labels_stand_in_shards_and_manifest(run: Path, tmp_path: Path) -> None:
    code, _ = sitkit("sample", run, "--samples", 300, "--labels", "random", "--seed", 5, "--out", tmp_path / "samples")
    assert code == 0
    samples = SampleFolder.open(tmp_path / "samples")
    expected = Labels(DIGITS, "random")(5, torch.arange(300))
    assert expected is not None
    assert samples.labels is not None
    assert torch.equal(samples.labels, expected)
    assert torch.equal(samples.get(1).labels, expected[256:])  # type: ignore[arg-type]
    assert samples.content.manifest["labels"] == "random, of all classes"
    assert (samples.get(0).calls, samples.get(0).rows) == (3, 6)
    draw = request_of(run, seed=5).generator(Run(run).latest())
    assert_alike(draw(torch.arange(20), expected[:20]).pixels, pixels(samples)[:20])


@pytest.fixture(scope="module")
def others(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with one more step, and one with another seed."""
    folder = tmp_path_factory.mktemp("others")
    shutil.copytree(run, folder / "longer")
    trained(folder / "longer", "train.steps=25")
    trained(folder / "another", "seed=1")
    return folder


def test_samples_of_anything_else_are_refused_by_name(run: Path, others: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    assert sitkit("sample", run, "--samples", 12, "--out", out)[0] == 0
    content = SampleFolder.open(out).content
    before = states(tmp_path)
    for source, options, keys in (
        (run, ["--seed", 1], ["seed (0, now 1)"]),
        (run, sets("sampler.steps=4"), ["recipe.sampler.steps (3, now 4)"]),
        (run, sets("guidance.scale=1.0"), ["recipe.guidance.scale (2.0, now 1.0)"]),
        (run, ["--label", "3"], ["labels (in turn, of all classes, now in turn, of 3)"]),
        (others / "longer", [], ["checkpoint (step-00000024, now step-00000025)", "average_sha256 ("]),
        (others / "another", [], ["recipe.seed (0, now 1)", "average_sha256 ("]),
    ):
        line = refused("sample", source, "--num", 13, "--out", out, *options)
        assert f"{out} holds other samples; give another --out, or undo: " in line
        assert all(key in line for key in keys)
        assert line.split("undo: ")[1].count("now") == len(keys) or keys[0].startswith(("recipe.sampler", "labels"))
        assert states(tmp_path) == before
    manifest = content.manifest | {"made_by": {"torch": "0.1"}}  # rounding may differ with it
    SampleFolder(out, content.model_copy(update={"manifest": manifest})).write()
    assert sitkit("sample", run, "--samples", 13, "--out", out)[0] == 0
    assert len(SampleFolder.open(out)) == 13


def test_sde_samples_with_other_noise_are_not_extended(run: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "samples", sets("sampler.kind=sde", "sampler.solver=auto")
    assert sitkit("sample", run, "--num", 12, "--out", out, *options)[0] == 0
    content = SampleFolder.open(out).content
    before = {key: value for key, value in content.manifest.items() if key != "step_noise"}
    SampleFolder(out, content.model_copy(update={"manifest": before})).write()
    line = refused("sample", run, "--num", 13, "--out", out, *options)
    assert line.endswith("undo: step_noise (None, now Philox 4x32-10, domain 1)")


def test_folders_without_samples_are_not_changed(run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/own").write_text("own")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/samples.json").write_text('{"format": 1, "count": 0}')
    before = states(tmp_path)
    assert "holds other files and no samples: give another --out" in refused("sample", run, "--out", tmp_path / "full")
    for command in (["sample", run, "--out", tmp_path / "broken"], ["evaluate", tmp_path / "broken"]):
        assert "broken/samples.json does not describe samples (count: " in refused(*command)
    assert f"there are no samples in {tmp_path / 'full'}" in refused(
        "export", tmp_path / "full", "--out", tmp_path / "x.npz"
    )
    assert states(tmp_path) == before


def test_a_folder_that_is_there_may_have_a_dot_in_its_name(run: Path, tmp_path: Path) -> None:
    (tmp_path / "w-0.5").mkdir()
    assert sitkit("sample", run, "--samples", 2, "--out", tmp_path / "w-0.5")[0] == 0
    assert len(SampleFolder.open(tmp_path / "w-0.5")) == 2


def test_an_array_comes_by_way_of_a_hidden_folder(
    alone: SampleFolder, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the array is written, no sample is generated again; another seed gives other samples."""
    out = tmp_path / "new" / "some[1].npz"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sample, "export", stop)
    assert sitkit("sample", run, "--samples", 300, "--seed", 7, "--out", out)[0] == 130
    assert sitkit("sample", run, "--samples", 300, "--out", out)[0] == 130
    assert len([*out.parent.iterdir()]) == 2
    monkeypatch.undo()
    monkeypatch.setattr(SampleRequest, "generator", stop)
    assert sitkit("sample", run, "--samples", 300, "--out", out)[0] == 0
    assert [*out.parent.iterdir()] == [out]
    arrays = arrays_of(out)
    assert np.array_equal(arrays["arr_0"][:256, ..., 0], alone.get(0).pixels[:, 0].numpy())
    assert np.array_equal(arrays["labels"], np.arange(300) % 10)


def test_a_process_without_a_shard_does_not_wait_for_one_that_may_be_done(run: Path, tmp_path: Path) -> None:
    sample.sample_to_npz(request_of(run), 3, tmp_path / "x.npz", WorkPartition(1, 2))
    assert not [*tmp_path.iterdir()]
    sample.sample_to_npz(request_of(run), 3, tmp_path / "x.npz", WorkPartition(0, 2))
    assert [*tmp_path.iterdir()] == [tmp_path / "x.npz"]


def test_an_image_grid_shows_the_samples(alone: SampleFolder, run: Path, tmp_path: Path) -> None:
    assert sitkit("sample", run, "--samples", 20, "--out", tmp_path / "grid.png")[0] == 0
    first = torch.arange(20)
    expected = label_grid(alone.read(first), first % 10, DIGITS)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == expected.size
        apart = np.asarray(picture.convert("RGB")).astype(int) - np.asarray(expected)
    assert abs(apart).max() <= 1
    assert [*tmp_path.iterdir()] == [tmp_path / "grid.png"]


def words(run: Path, out: Path, count: int = 1100) -> list[str]:
    return ["sample", str(run), "--samples", str(count), "--batch", "16", "--out", str(out)]


@pytest.mark.slow
def test_an_array_whose_command_is_killed_repeatedly_is_the_same(run: Path, tmp_path: Path) -> None:
    log, out, straight = tmp_path / "log", tmp_path / "out" / "array.npz", tmp_path / "straight" / "array.npz"
    assert forked.finish(words(run, straight), log) == 0, log.read_text()
    kills = 0
    for seconds in patience():
        fork = forked.start(words(run, out), log)
        time.sleep(seconds)
        kill(fork)
        if fork.wait() == 0:
            break
        kills += 1
    assert kills > 3
    assert contents(out) == contents(straight)
    assert [*out.parent.iterdir()] == [out]


@pytest.mark.slow
def test_two_processes_of_which_any_is_killed_give_the_same_samples(run: Path, tmp_path: Path) -> None:
    log, out, straight = tmp_path / "log", tmp_path / "out", tmp_path / "straight"
    assert forked.finish(words(run, straight), log) == 0, log.read_text()
    chance, kills = random.Random(1), 0
    for seconds in patience():
        forks = [forked.start(words(run, out), log, RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
        time.sleep(seconds)
        for fork in chance.sample(forks, 2):  # the other continues for a while
            kill(fork)
            time.sleep(seconds * chance.random())
        codes = [fork.wait() for fork in forks]
        if codes == [0, 0]:
            break
        assert set(codes) <= {0, -signal.SIGKILL}
        kills += 1
        for file in out.glob("shards/0*.npz"):  # complete whenever it exists
            assert file.read_bytes() == (straight / "shards" / file.name).read_bytes()
    assert kills > 3
    assert contents(out) == contents(straight)


@pytest.mark.slow
def test_torchrun_generates_the_same_samples_as_one_process(run: Path, tmp_path: Path) -> None:
    log, out, straight = tmp_path / "log", tmp_path / "out" / "array.npz", tmp_path / "straight" / "array.npz"
    assert forked.finish(words(run, straight), log) == 0, log.read_text()
    launch = [*launching.torchrun(2), "-m", "sitkit.recipes", *words(run, out)]
    assert launching.finish(launch, log) == 0, log.read_text()
    assert contents(out) == contents(straight)
    assert [*out.parent.iterdir()] == [out]


def contents(out: Path) -> dict[str, str]:
    """Return the content of a folder or file, without temporary files that a kill has left."""
    if out.is_file():
        return {out.name: out.read_bytes().hex()}
    return {name: digest for name, digest in forked.contents(out).items() if not name.endswith(".tmp")}
