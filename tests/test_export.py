"""`sitkit export`: samples in the formats of other programs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from measuring import arrays_of, pixels, refused, sitkit, states, written
from sitkit.recipes.sampling.export import export
from sitkit.recipes.sampling.sample_folder import SampleFolder


@pytest.fixture(params=[1, 3], ids=["grey", "colour"])
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> SampleFolder:
    """Return 10 samples in 3 shards."""
    generator = torch.Generator().manual_seed(0)
    found = torch.randint(256, (10, request.param, 4, 6), generator=generator).to(torch.uint8)
    return written(tmp_path / "samples", found, torch.arange(10) % 3)


def test_an_array_has_the_samples_as_adm_has_them(drawn: SampleFolder, tmp_path: Path) -> None:
    export(drawn, tmp_path / "new/samples.npz")
    arrays = arrays_of(tmp_path / "new/samples.npz")
    expected = pixels(drawn).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    assert sorted(arrays) == ["arr_0", "labels"]
    assert arrays["arr_0"].dtype == np.uint8
    assert np.array_equal(arrays["arr_0"], expected.numpy())
    assert arrays["labels"].tolist() == [number % 3 for number in range(10)]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["samples.npz"]


def test_labels_are_the_numeric_names_of_classes(drawn: SampleFolder, tmp_path: Path) -> None:
    content = drawn.content.model_copy(update={"classes": ("0", "7", "1000")})
    export(SampleFolder(drawn.folder, content), tmp_path / "samples.npz")
    assert arrays_of(tmp_path / "samples.npz")["labels"].tolist() == [(0, 7, 1000)[number % 3] for number in range(10)]


def test_files_have_the_samples(drawn: SampleFolder, tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()  # an empty folder, and a temporary one of a killed command
    (tmp_path / ".png.tmp").mkdir()
    (tmp_path / ".png.tmp/half.png").write_bytes(b"half")
    assert sitkit("export", drawn.folder, "--out", tmp_path / "png")[0] == 0
    files = sorted((tmp_path / "png").iterdir())
    assert [file.name for file in files] == [*(f"{number:08d}.png" for number in range(10)), "labels.json"]
    for file, expected in zip(files, pixels(drawn), strict=False):
        with Image.open(file) as image:
            assert image.mode == ("L" if len(expected) == 1 else "RGB")
            found = np.asarray(image.convert("RGB"))
        assert np.array_equal(found, expected.expand(3, -1, -1).permute(1, 2, 0).numpy())
    names = json.loads(files[-1].read_text())
    assert [names[f"{number:08d}.png"] for number in range(10)] == [*"abcabcabca"]
    contents = {file.name: file.read_bytes() for file in files}
    (tmp_path / "png/00000003.png").unlink()  # as if files had been moved one by one, and not all
    assert sitkit("export", drawn.folder, "--out", tmp_path / "png")[0] == 0
    assert {file.name: file.read_bytes() for file in (tmp_path / "png").iterdir()} == contents
    for name, said in (("00000003.png", "is an image of other samples"), ("notes", "holds other files")):
        (tmp_path / "png" / name).write_bytes(b"another")
        before = states(tmp_path)
        assert f"{said}; give another --out" in refused("export", drawn.folder, "--out", tmp_path / "png")
        assert states(tmp_path) == before
    assert not (tmp_path / ".png.tmp").exists()


@pytest.mark.parametrize("name", ["samples.npz", "png"])
def test_an_export_that_fails_leaves_nothing(
    drawn: SampleFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "out" / name
    out.parent.mkdir()
    if name == "samples.npz":
        out.write_bytes(b"an older one")
    before = states(tmp_path)
    whole = SampleFolder.get

    def stop(samples: SampleFolder, shard: int) -> Any:
        if shard == 1:
            raise KeyboardInterrupt
        return whole(samples, shard)

    monkeypatch.setattr(SampleFolder, "get", stop)
    assert sitkit("export", drawn.folder, "--out", out)[0] == 130
    assert states(tmp_path) == before
    monkeypatch.undo()
    drawn.shards.file(2).unlink()
    before = states(tmp_path)
    assert "lacks 1 of 3 shards: run the same `sitkit sample`" in refused("export", drawn.folder, "--out", out)
    assert states(tmp_path) == before
    assert [*out.parent.iterdir()] == ([out] if name == "samples.npz" else [])
