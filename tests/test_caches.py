"""Cached features, samples and measurements are computed again when files change under the same names."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_reference import COLOUR, how

from image_files import encode, noise_of
from measuring import LIKENESS, evaluated, means, noted, sets, sitkit, trained, write_arrays, written
from sitkit.recipes.data.folder import folder
from sitkit.recipes.evaluation.reference import open_reference, reference_of_split
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.runs.run import Run
from sitkit.recipes.sampling.generator import SampleBatch
from sitkit.recipes.study.parts import compute
from sitkit.recipes.study.run import StudyRun
from sitkit.recipes.study.study_folder import StudyFolder
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.tune.benchmark import SamplerBenchmark


def picture(number: int) -> bytes:
    """Return a PNG of 8 x 8 pixels with the same number of bytes for every content."""
    return encode(noise_of(8, 8, 3)[:, :, [number % 3, number // 3 % 3, number // 9 % 3]])


def write_images(root: Path, numbers: range) -> Path:
    for number in numbers:
        file = root / "ab"[number % 2] / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return root


def exchange(root: Path, *skip: str) -> None:
    """Replace all images but some without changing names, sizes and times."""
    for file in sorted(root.rglob("*.png")):
        if file.name not in skip:
            before = file.stat()
            content = encode(255 - noise_of(8, 8, 3))
            file.write_bytes(content)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("caches")
    train, held = (write_images(root / name, range(14)) for name in ("train", "held"))
    data = f"data={{kind='folder', path='{train}', heldout='{held}', size=8}}"
    return trained(root / "run", data, "backbone.kind=sit", "backbone.patch_size=4", "train.batch=2", "train.steps=2")


def test_heldout_images_that_were_exchanged_are_looked_at_again(run: Path, tmp_path: Path) -> None:
    """All but the first and the last are replaced; the metric is that of a fresh evaluation."""
    words = (run, *sets("evaluation.num=12", "evaluation.draws=1"), "--out")
    first = means(evaluated(*words, tmp_path / "out"))
    held = run.parent / "held"
    exchange(held, "00.png", "13.png")
    again, fresh = (means(evaluated(*words, tmp_path / name)) for name in ("out", "fresh"))
    assert again == fresh
    assert again["Frechet distance of pixels"] != first["Frechet distance of pixels"]
    write_images(held, range(14))


@pytest.mark.parametrize("split", [0.5, "none"])
def test_statistics_of_files_are_those_of_their_content(tmp_path: Path, split: Any) -> None:
    root = write_images(tmp_path / "images", range(12))
    for exchanged in (False, True):
        if exchanged:
            exchange(root, "00.png", "11.png")
        part = folder(str(root), 8, split=split)
        images = part.training if split == "none" else part.heldout
        with noted(tmp_path / "notes") as seen:
            for _ in range(2):
                assert reference_of_split(images, "held-out images", how(tmp_path / "cache")) is not None
                assert open_reference(root, COLOUR, (), how(tmp_path / "cache"), crop=False) is not None
        assert sorted(seen) == [len(images), 12] if split != "none" else [12, 12]


def test_statistics_of_an_array_are_those_of_its_content(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for exchanged in (False, True):
        if exchanged:
            before = file.stat()
        write_arrays(file, arr_0=pixels ^ exchanged)
        if exchanged:
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        with noted(tmp_path / "notes") as seen:
            for _ in range(2):
                assert open_reference(file, COLOUR, (), how(tmp_path / "cache"), crop=False) is not None
        assert seen == [12]


def test_features_of_samples_are_those_of_their_shards(tmp_path: Path) -> None:
    """100 of 600 samples are replaced: only their block of 256 is computed again."""
    pixels = torch.randint(256, (600, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    recipe = read_recipe("digits").model_dump(mode="json")
    samples = written(tmp_path / "samples", pixels, shard=100, checkpoint="by hand", seed=0, recipe=recipe)
    words = (samples.folder, "--set", LIKENESS, "--out", tmp_path / "out")
    with noted(tmp_path / "notes") as seen:
        first = means(evaluated(*words))
    assert sum(seen) == 600 + 899 + 898
    rows = range(300, 400)
    samples.put(3, SampleBatch(255 - samples.read(torch.tensor(rows)), None, 3, 6))
    with noted(tmp_path / "notes") as seen:
        again = means(evaluated(*words))
    assert seen == [256]
    assert again != first
    with noted(tmp_path / "notes") as seen:
        assert means(evaluated(*words)) == again
    assert seen == []


def test_bits_are_those_of_the_files_that_are_there(run: Path) -> None:
    def bits() -> float:
        code, said = sitkit("likelihood", run, "--images", 14, "--probes", 1)
        assert code == 0, said
        return float(json.loads((run / "likelihood.json").read_text())["bits per dimension"])

    first = bits()
    assert bits() == first
    exchange(run.parent / "held", "00.png", "13.png")
    assert bits() != first
    write_images(run.parent / "held", range(14))


@pytest.mark.parametrize("reference", [False, True])
def test_a_trial_is_one_of_the_images_that_are_there(run: Path, tmp_path: Path, reference: bool) -> None:
    from sitkit.recipes.evaluation.config import EvaluationConfig

    recipe = Run(run).recipe()
    held = run.parent / "held"

    def key() -> str:
        named = held if reference else None
        config = EvaluationConfig(recipe.evaluation.features, named, False, 2, torch.device("cpu"), tmp_path)
        return SamplerBenchmark(Run(run), recipe.data.build(), config, "ema", tmp_path).key(recipe, 0)

    first = key()
    assert key() == first
    exchange(held, "00.png", "13.png")
    assert key() != first
    write_images(held, range(14))


def test_a_cell_of_a_study_is_one_of_the_images_that_are_there(tmp_path: Path) -> None:
    """It is measured again if held-out images change, and refused if training images change."""
    train, held = (write_images(tmp_path / name, range(14)) for name in ("train", "held"))
    data = f"data = {{ kind = 'folder', path = '{train}', heldout = '{held}', size = 8 }}"
    text = f"backbone.kind = 'sit'\nbackbone.patch_size = 4\n{data}\n[train]\nsteps = 2\nbatch = 2\n"
    small = ("backbone.hidden_size = 16", "backbone.depth = 1", "backbone.num_heads = 2", "evaluation.draws = 1")
    (tmp_path / "base.toml").write_text(text)
    settings = "\n".join(("[set]", *small, "sampler.steps = 2"))
    (tmp_path / "study.toml").write_text(
        f"base = '{tmp_path / 'base.toml'}'\nseeds = [0]\n{settings}\n[axes]\nguidance.scale = [1.0]\n"
    )
    study = StudyRun.open(tmp_path / "study.toml", tmp_path / "out", None, [])
    (network,), ((key, cell),) = study.grid.networks, study.grid.cells.items()

    def do(*keys: str) -> float:
        folder = StudyFolder.make(tmp_path / "out", None)  # no cache exists yet
        for one in keys:
            compute(one, study.grid, folder, torch.device("cpu"), 64)
        return float(folder.measured(cell)["numbers"]["Frechet distance of pixels"]["mean"])

    def done() -> bool:
        return StudyFolder.make(tmp_path / "out", None).done(cell)

    first = do(network, key)
    assert done()
    assert do(key) == first
    exchange(held, "00.png", "13.png")
    assert not done()
    assert do(key) != first
    assert done()
    exchange(train, "00.png")
    assert not done()
    with pytest.raises(UserError, match="was created with other data"):
        do(key)
    train.rename(tmp_path / "moved")  # missing data cannot be compared
    assert done()
