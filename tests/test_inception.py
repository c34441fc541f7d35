"""Inception: the features of ADM's evaluator, and the download of its weights."""

import hashlib
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sitkit.recipes.features import Inception, inception
from sitkit.recipes.support.errors import UserError
from stub_networks import fidelity, images, of_all, random_inception, small_inception


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_inception(tmp_path) as file:
        yield file


def test_while_a_network_computes_float32_is_float32(small: Path) -> None:
    extractor = Inception(weights=str(small))
    backends: Any = torch.backends
    seen: list[object] = []

    def look(*_: object) -> None:
        places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
        seen.extend(place.fp32_precision for place in places)
        seen.extend((backends.cudnn.deterministic, backends.cudnn.benchmark, torch.is_grad_enabled()))

    extractor._network.register_forward_hook(look)
    extractor(images(1))
    assert seen == ["ieee"] * 4 + [True, False, False]


def test_inception_returns_the_features_of_adms_evaluator(small: Path) -> None:
    extractor = Inception(weights=str(small))
    pixels = images(2)
    features = extractor(pixels)
    network = extractor._network
    maps = network.Mixed_6d(pixels.float() / 255)  # (B, 9, 17, 17)
    expected = [[maps[b, c, h, w] for h in range(17) for w in range(17) for c in range(7)] for b in range(2)]
    assert features.spatial is not None
    assert torch.equal(features.spatial, torch.tensor(expected))
    assert torch.equal(features.pooled, maps.mean((2, 3)))
    torch.testing.assert_close(features.probs, (features.pooled @ network.fc.weight.T).softmax(1))
    assert not network.Mixed_6d.branch1x1._forward_hooks


def test_inception_is_torch_fidelitys(tmp_path: Path) -> None:
    module = fidelity().feature_extractor_inceptionv3
    file = random_inception(module, tmp_path / "inception.pth")
    network = module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased", "768"], feature_extractor_weights_path=str(file)
    )
    assert network.load_state_dict(torch.load(file, weights_only=True))
    extractor = Inception(weights=str(file))
    for pixels in (images(2, height=32, width=32), images(1, height=320, width=256, seed=1)):
        features = extractor(pixels)
        pooled, logits, _ = network(pixels)
        assert [tuple(value.shape[1:]) for value in of_all(features)] == [(2048,), (2023,), (1008,)]
        torch.testing.assert_close(features.pooled, pooled, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(features.probs, logits.softmax(1), rtol=1e-5, atol=1e-9)
        seen: dict[str, Tensor] = {}
        network.Mixed_6d.register_forward_hook(lambda m, i, output, seen=seen: seen.update(maps=output))
        network(pixels)
        spatial = seen["maps"][:, :7].permute(0, 2, 3, 1).reshape(len(pixels), 2023)  # branch1x1 comes first in it
        torch.testing.assert_close(features.spatial, spatial, rtol=1e-5, atol=1e-7)


@pytest.fixture
def published(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in place of the weights that torch-fidelity publishes."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    module = import_module("torch_fidelity").feature_extractor_inceptionv3
    monkeypatch.setattr(module, "URL_INCEPTION_V3", small.as_uri())
    monkeypatch.setattr(inception, "OFFICIAL_SHA256", hashlib.sha256(small.read_bytes()).hexdigest())
    return small


def test_default_inception_weights_are_downloaded_once(published: Path, tmp_path: Path) -> None:
    named = Inception(weights=str(published))
    one = Inception()
    assert one.sha256 == named.sha256
    published.rename(tmp_path / "elsewhere")
    other = Inception()
    assert other.sha256 == named.sha256
    assert torch.equal(other(images(1)).pooled, one(images(1)).pooled)


def test_a_failed_download_of_inception_weights_is_one_line(published: Path) -> None:
    published.unlink()
    with pytest.raises(
        UserError, match=r"inception\.pth cannot be downloaded \(.*\): download .* set weights to its path$"
    ):
        Inception()(images(1))


def test_inceptions_weights_arrive_damaged(published: Path, tmp_path: Path) -> None:
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"cannot be downloaded \(invalid hash value"):
        Inception()(images(1))
    (tmp_path / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
    (tmp_path / "hub/checkpoints/inception.pth").write_bytes(b"half")
    for ask in (lambda: Inception().sha256, lambda: Inception()(images(1))):
        with pytest.raises(UserError, match=r"checkpoints/inception\.pth is damaged, or another file: remove it"):
            ask()


def test_torchvision_made_for_another_torch(small: Path) -> None:
    for name in ("torchvision", "torch_fidelity"):
        sys.modules.pop(name, None)
    site = small.parent / "site"
    (site / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(
        UserError, match=r"torchvision, which is installed but cannot be imported \(operator .*for torch 2"
    ):
        Inception()
