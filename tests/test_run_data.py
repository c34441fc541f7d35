"""The data of a run: not needed for sampling, found after a move, and other data are refused by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_fingerprint import write_edm2, write_lightningdit

from image_files import component
from latent_caches import small
from released import sitkit
from sitkit.recipes.data import absent
from sitkit.recipes.data.images import Split
from sitkit.recipes.experiment.components import Component
from sitkit.recipes.experiment.slots import DATA
from sitkit.recipes.runs.data_record import DataRecord, open_data
from sitkit.recipes.runs.run import Run
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.trust import TRUST_EVERYTHING

TINY = ["backbone={kind='sit', patch_size=4, hidden_size=16, depth=1, num_heads=2}", "train.batch=4", "train.steps=1"]
TINY += ["sampler.steps=2", "grid.every=100", "log.every=100", "checkpoint.every=100", "optimizer.warmup=0"]
PAIR = {"dark": 40, "light": 200}


def write_images(root: Path, classes: dict[str, int], count: int = 12) -> Path:
    """Write a folder for each class, of grey images about a level, all of the same size in bytes."""
    for name, level in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.full((8, 8, 3), level + number, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png", compress_level=0)
    return root


def sets(*settings: str) -> list[str]:
    return [word for one in settings for word in ("--set", one)]


def data_of(path: Path | str, **fields: Any) -> str:
    inner = "".join(f", {key} = {json.dumps(value)}" for key, value in fields.items())
    return f"data={{kind = 'folder', path = '{path}', size = 8{inner}}}"


def train(out: Path, data: str, *more: str) -> tuple[int, str]:
    return sitkit("train", "digits", "--out", out, *sets(data, *TINY, *more))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run on a folder of two classes beside it, `images`."""
    write_images(tmp_path / "images", PAIR)
    code, said = train(tmp_path / "run", data_of(tmp_path / "images", split=0.5))
    assert code == 0, said
    return tmp_path / "run"


def rename(images: Path) -> None:
    (images / "light").rename(images / "bright")


def add(images: Path) -> None:
    shutil.copy(images / "dark/0.png", images / "dark/90.png")
    shutil.copy(images / "dark/0.png", images / "dark/91.png")


def remove(images: Path) -> None:
    os.remove(images / "light/0.png")
    os.remove(images / "light/1.png")


def replace(images: Path) -> None:
    for number in range(12):
        shutil.copy(images / f"dark/{number}.png", images / f"light/{number}.png")


def new_class(images: Path) -> None:
    write_images(images, {"middle": 100})


def lose_class(images: Path) -> None:
    shutil.rmtree(images / "light")


CHANGES: list[tuple[Callable[[Path], None], str]] = [
    (rename, "class 'light' is now named 'bright'"),
    (add, "class 'dark': 6 images before, 7 now"),
    (remove, "class 'light': 6 images before, 5 now"),
    (replace, "class 'light': the images have changed"),
    (new_class, "class 'middle' is new"),
    (lose_class, "class 'light' is missing"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_other_data_are_refused_by_name(change: Callable[[Path], None], said: str, run: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    change(images)
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != ".lock"}
    commands = [
        ["train", "digits", "--out", run, *sets(data_of(images, split=0.5), *TINY, "train.steps=2")],
        ["evaluate", run],
        ["likelihood", run, "--images", 2],
        ["replay", run, "--step", 1],
        ["sample", run, "--out", tmp_path / "x.png", *sets("sampler.kind=sde", "sampler.w={kind='kl_eta', eta=1.0}")],
    ]
    for command in commands:
        code, line = sitkit(*command)
        assert (code, line.count("\n")) == (2, 1), line
        assert f"{run} was created with other data: {said}" in line
        assert "--set data.path=DIR" in line
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.name != ".lock"} == before


def test_a_run_without_a_checkpoint_does_not_send_one_to_fine_tune_it(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    add(tmp_path / "images")
    code, said = train(run, data_of(tmp_path / "images", split=0.5))
    assert (code, "give another --out: it has no checkpoint yet" in said, "train.init" in said) == (2, True, False)


def test_a_run_is_sampled_from_without_its_data(run: Path, tmp_path: Path) -> None:
    draw = ["sample", run, "--samples", 4, "--label", "light"]
    assert sitkit(*draw, "--out", tmp_path / "before.npz")[0] == 0
    shutil.rmtree(tmp_path / "images")
    code, said = sitkit(*draw, "--out", tmp_path / "after.npz")
    assert code == 0, said
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("before", "after"))
    assert all(np.array_equal(one[key], two[key]) for key in ("arr_0", "labels"))
    assert one["labels"].tolist() == [1] * 4
    code, said = sitkit("sample", run, "--label", "bright", "--out", tmp_path / "x.npz")
    assert (code, "no class 'bright'" in said, "dark, light" in said) == (2, True, True)
    write_images(tmp_path / "reference", PAIR)
    code, said = sitkit("evaluate", run, "--reference", tmp_path / "reference", "--out", tmp_path / "report")
    assert code == 0, said  # as many samples as were held out
    assert json.loads((tmp_path / "report/report.json").read_text())["manifest"]["samples"] == 12
    code, said = sitkit("evaluate", run)
    assert (code, said.count("\n"), "there is no folder" in said) == (2, 1, True)


def test_data_that_moved_are_named_and_compared(run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").rename(tmp_path / "moved")
    (place,) = [f"data.path={tmp_path / 'moved'}"]
    again = ["train", "digits", "--out", run, *sets(data_of(tmp_path / "images", split=0.5), *TINY, "train.steps=2")]
    code, said = sitkit(*again)
    assert (code, "there is no folder" in said, "give their location with --set data.path=DIR" in said) == (
        2,
        True,
        True,
    )
    for command in (
        ["evaluate", run],
        ["likelihood", run, "--images", 2],
        ["replay", run, "--step", 1],
        ["sample", run, "--samples", 2, "--out", tmp_path / "x.png"],
        again,
    ):
        code, said = sitkit(*command, *sets(place))
        assert code == 0, said
    assert Run(run).recipe().data.fields.path == str(tmp_path / "moved")  # type: ignore[attr-defined]
    assert sitkit("evaluate", run)[0] == 0
    write_images(tmp_path / "others", {"dark": 40, "light": 100})
    for command in (["evaluate", run], ["likelihood", run], ["replay", run, "--step", 1], again):
        code, said = sitkit(*command, *sets(f"data.path={tmp_path / 'others'}"))
        assert (code, "class 'light': the images have changed" in said) == (2, True), said
    code, said = sitkit(*again, *sets(place, "data.size=16"))
    assert (code, "holds a run of another recipe" in said, "data.size" in said) == (2, True, True)


def test_relative_places_are_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "home/images", PAIR)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    assert train(tmp_path / "run", data_of("images", split=0.5))[0] == 0
    monkeypatch.chdir(tmp_path / "away")
    code, said = train(tmp_path / "run", data_of("images", split=0.5), "train.steps=2")
    assert code == 0, said
    assert "trained 2 steps" in said
    assert sitkit("evaluate", tmp_path / "run")[0] == 0
    write_images(tmp_path / "away/images", {"dark": 1, "light": 2})  # data that are present are preferred and compared
    code, said = sitkit("evaluate", tmp_path / "run")
    assert (code, "created with other data" in said) == (2, True)


def test_changed_held_out_images_are_reported(run: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "heldout", PAIR)
    data = data_of(tmp_path / "images", heldout=str(tmp_path / "heldout"))
    assert train(tmp_path / "two", data)[0] == 0
    shutil.rmtree(tmp_path / "heldout")
    write_images(tmp_path / "heldout", {"dark": 41, "light": 210})
    code, said = sitkit("evaluate", tmp_path / "two")
    assert code == 0, said
    assert (
        "the held-out images have changed since the run was created: class 'dark': the images have changed; class"
        in said
    )


def test_a_run_of_an_earlier_version_resumes_with_a_note(run: Path, tmp_path: Path) -> None:
    record = (run / "data.json").read_bytes()
    os.remove(run / "data.json")
    told = f"{run} was created by an earlier version, without a record of its data"
    for command in (["evaluate", run], ["sample", run, "--samples", 2, "--out", tmp_path / "x.png"]):
        code, said = sitkit(*command)
        assert (code, said.count(told)) == (0, 1), said
    code, said = train(run, data_of(tmp_path / "elsewhere", split=0.5), "train.steps=2")
    assert code == 2
    code, said = train(run, data_of(tmp_path / "images", split=0.5), "train.steps=2")
    assert (code, said.count(f"{told}: it is written now")) == (0, 1)
    assert (run / "data.json").read_bytes() == record
    (run / "data.json").write_text("{")
    code, said = sitkit("evaluate", run)
    assert (code, said.count("\n"), "data.json is damaged" in said) == (2, 1, True)


def test_a_record_from_anywhere_is_refused_in_a_line(run: Path, tmp_path: Path) -> None:
    table = json.loads((run / "data.json").read_text())
    two = {"count": 3, "fingerprint": None}
    vae = {"kind": "vae", "vae": "nowhere"}
    for change, said in (
        ({"shape": [3, 8]}, "shape.2"),
        ({"shape": [0, 8, 8]}, "shape.0"),
        ({"shape": [3, 10**9, 10**9]}, "shape.1"),
        ({"shape": [3, 10**30, 8]}, "shape.1"),
        ({"classes": ["x"]}, "there are 1 classes, and images of 2"),
        ({"training": [two]}, "there are 2 classes, and images of 1"),
        ({"heldout": [two, two, two]}, "there are 2 classes, and images of 3"),
        ({"places": {"path": 5}}, "places.path"),
        ({"more": 1}, "more: Extra inputs"),
        ({"decoder": vae | {"scale": 0.0}}, "decoder.scale"),
        ({"decoder": vae | {"mean": [1.0], "std": []}}, "a mean and a std for each channel"),
        ({"decoder": vae | {"mean": [1.0] * 3, "std": [1.0, 1.0, 0.0]}}, "decoder.std.2"),
        ({"decoder": {"kind": "code"}}, "decoder.kind"),
        ({"format": 2}, "format"),
    ):
        (run / "data.json").write_text(json.dumps(table | change))
        for command in (["sample", run, "--out", tmp_path / "x.npz"], ["evaluate", run]):
            code, line = sitkit(*command)
            assert (code, line.count("\n"), "data.json is damaged" in line, said in line) == (2, 1, True, True), line
    os.remove(run / "data.json")
    (run / "data.json").symlink_to("/dev/zero")
    code, line = sitkit("sample", run, "--out", tmp_path / "x.npz")
    assert (code, line.count("\n"), "data.json is damaged" in line) == (2, 1, True), line


def test_a_record_is_enough_to_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents of every kind are decoded to the same pixels with the run's record as with the data."""
    small(tmp_path / "vae", 0)
    write_edm2(tmp_path / "edm2")
    write_lightningdit(tmp_path / "lightningdit")
    state = torch.load(tmp_path / "lightningdit/latents_stats.pt")
    torch.save({"mean": state["mean"] + 0.3, "std": 2 * state["std"]}, tmp_path / "lightningdit/latents_stats.pt")
    monkeypatch.chdir(tmp_path)
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for kind, fields in (("edm2", {"scale": 0.5}), ("lightningdit", {"multiplier": 0.7}), ("absent", {})):
        own = {"shape": [2, 4, 4], "classes": 2} if kind == "absent" else {"path": kind}
        data = component(kind, vae="vae", **own, **fields)
        split = open_data(data, None)
        written = DataRecord.of(data, split).model_dump_json()
        record = DataRecord.model_validate_json(written)
        assert record.differences(split) == []
        monkeypatch.chdir("/")
        known = record.split(data)
        assert known is not None
        assert (known.classes, known.training.shape) == (split.classes, split.training.shape)
        decoded = known.decode(x)
        monkeypatch.chdir(tmp_path)
        assert torch.equal(decoded, split.decode(x))
    one, two = (component("edm2", vae="vae", path="edm2", scale=scale) for scale in (0.5, 0.6))
    record = DataRecord.of(one, open_data(one, None))
    assert record.differences(open_data(two, None)) == ["the decoder's scale was 0.5 and is 0.6"]
    shape = absent((3, 8, 8), 2, "none")
    assert DataRecord.of(component("absent", shape=[3, 8, 8], classes=2, vae="none"), shape).training == ()


def own_data(size: int = 8) -> Split:
    """Return custom data: pixels made from the digits."""
    from sitkit.recipes.data import digits

    return digits()


def own_decoder() -> Split:
    split = own_data()
    return Split(split.training, split.heldout, split.classes, lambda x: (x > 0).to(torch.uint8))


def own_classes() -> Split:
    split = own_data()
    return Split(split.training, split.heldout, (*split.classes, "ten", "eleven"))


def own_labels() -> Split:
    split = own_data()
    return Split(split.training, split.heldout, split.classes[:5])


def no_data() -> Split:
    return ("no", "data")  # type: ignore[return-value]


def test_custom_data_are_recorded_by_the_methods_that_they_have(tmp_path: Path) -> None:
    def named(name: str) -> Component:
        found = DATA.parse(f"{__name__}:{name}", TRUST_EVERYTHING)
        assert found is not None
        return found

    data = named("own_data")
    record = DataRecord.of(data, data.build())
    assert len(record.training) == 10
    assert record.split(data) is not None
    own = named("own_decoder")
    assert DataRecord.of(own, own.build()).split(own) is None  # only the data can decode to pixels
    assert open_data(data, None).notes == ()
    told = open_data(named("own_classes"), None).notes
    assert [line.split(": ", 1)[1] for line in told] == [
        "2 classes have no training images, but samples of them will be generated: ten, eleven"
    ]
    with pytest.raises(UserError, match=r"own_labels: labels of training are 0 to 9, and there are 5 classes$"):
        open_data(named("own_labels"), None)
    with pytest.raises(UserError, match="returns a tuple, not a Split"):
        open_data(named("no_data"), None)


def test_a_run_stopped_by_a_broken_image_resumes_without_it(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", PAIR)
    (images / "dark/3.png").write_bytes(b"damaged")
    whole = [data_of(images), "checkpoint.every=2", "train.batch=2"]
    code, said = train(tmp_path / "run", *whole, "train.steps=30")
    assert code == 2
    assert "dark/3.png cannot be read as an image" in said
    assert "set data.unreadable = skip" in said
    code, said = train(tmp_path / "run", data_of(images, unreadable="skip"), *whole[1:], "train.steps=30")
    assert code == 0, said
    skipped = "23 images of 2 classes (dark 11, light 12); 1 of 24 images are unreadable and skipped: dark/3.png"
    assert f"{images}: {skipped}\n" in said
    assert [one.count for one in Run(tmp_path / "run").data_record().training] == [11, 12]  # type: ignore[union-attr]
    code, said = train(tmp_path / "run", *whole, "train.steps=40")
    assert (code, "another recipe" in said) == (2, True)
    (images / "light/3.png").write_bytes(b"damaged")
    code, said = train(tmp_path / "run", data_of(images, unreadable="skip"), *whole[1:], "train.steps=40")
    assert (code, "class 'light': 12 images before, 11 now" in said) == (2, True)  # which was not so before


def test_held_out_images_stay_so_if_others_are_unreadable(run: Path, tmp_path: Path) -> None:
    """A split of fewer images would be another one."""
    code, said = train(run, data_of(tmp_path / "images", split=0.5, unreadable="skip"), "train.steps=2")
    assert (code, "undo: data.unreadable" in said) == (2, True)


def test_a_run_without_a_data_record_reports_other_classes(run: Path, tmp_path: Path) -> None:
    os.remove(run / "data.json")
    shutil.copytree(tmp_path / "images", tmp_path / "whole")
    lose_class(tmp_path / "images")
    again = [data_of(tmp_path / "images", split=0.5), "train.steps=2"]
    for code, said in (train(run, *again), sitkit("sample", run, "--out", tmp_path / "x.png")):
        assert code == 2
        assert "the data have other classes than in training" in said
        assert "restore the data, or fine-tune a new run with --set train.init=RUN" in said
    assert not (run / "data.json").exists()
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "whole").rename(tmp_path / "images")
    code, said = train(run, *again)
    assert code == 0, said
    assert "without a record of its data: it is written now" in said
    assert (run / "data.json").exists()
