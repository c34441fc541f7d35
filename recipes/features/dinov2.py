"""The DINOv2 feature extractor, for FD-DINOv2."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..storage.files import sha256
from ..support.errors import UserError
from ..support.names import did_you_mean
from ..support.trust import CodeFolder
from .extractor_tools import check_file, deterministic_float32, error_summary, read_weights
from .protocol import Features, in_colour

KIND = "dinov2"
SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels in [0, 1], by channel."""
DEFAULT_MODEL = "dinov2_vitl14"
WIDTHS = {"dinov2_vits14": 384, "dinov2_vitb14": 768, "dinov2_vitl14": 1024, "dinov2_vitg14": 1536}
MODELS = {f"dinov2_vit{size.lower()}14": f"DINOv2 ViT-{size}/14" for size in ("S", "B", "L", "g")}


@dataclass(frozen=True)
class DINOv2:
    """The class token of DINOv2 (Oquab et al., arXiv 2304.07193), as in dgm-eval (Stein et al., arXiv 2306.04675).

    Pooled features are (B, 1024) for ViT-L/14, whose Frechet distance is FD-DINOv2; that of another size is named after
    the size. Images are resized to 224x224 by Pillow's bicubic filter, which is antialiased and rounds to integers, and
    the input of the network is (x / 255 - mean) / std of ImageNet.

    Building the network runs the code of the checkout: name a folder that you trust. A recipe that is read from a run
    may name one only with `--trust`.

    Args:
        checkout: a folder with DINOv2's repository, whose `hubconf.py` builds the network.
        weights: the file of weights.
        model: the size, by its name in `hubconf.py`: dinov2_vits14, dinov2_vitb14, dinov2_vitl14 or dinov2_vitg14.

    Raises:
        UserError: the folder, the file or the size does not exist.
    """

    checkout: CodeFolder
    weights: str
    model: str = DEFAULT_MODEL

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise UserError(
                f"features '{KIND}' has no model '{self.model}'{did_you_mean(self.model, [*MODELS])}; "
                f"known: {', '.join(MODELS)}"
            )
        if not Path(self.checkout, "hubconf.py").is_file():
            raise UserError(
                f"features '{KIND}': there is no hubconf.py in {self.checkout}: give a checkout of DINOv2's repository"
            )
        check_file(KIND, "weights", self.weights)

    @property
    def name(self) -> str:
        """The name with the size of the network."""
        return MODELS[self.model]

    @property
    def frechet(self) -> str:
        """FD-DINOv2 for ViT-L/14, as in the literature; otherwise a name with the size."""
        return "FD-DINOv2" if self.model == DEFAULT_MODEL else f"FD-{self.name}"

    @property
    def kernel(self) -> str:
        """KD-DINOv2 for ViT-L/14; otherwise a name with the size."""
        return "KD-DINOv2" if self.model == DEFAULT_MODEL else f"KD-{self.name}"

    def sizes(self, image: tuple[int, int, int], /) -> tuple[int, int]:
        """Return the number of pooled and of spatial features."""
        return WIDTHS[self.model], 0

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file of weights."""
        return sha256(Path(self.weights))

    @cached_property
    def _network(self) -> Any:
        hub: Any = torch.hub
        try:
            with warnings.catch_warnings():  # a warning that xFormers, which is optional, is not installed
                warnings.simplefilter("ignore")
                network = hub.load(self.checkout, self.model, source="local", pretrained=False)
        except Exception as error:  # the checkout may raise anything
            raise UserError(
                f"features '{KIND}': {self.checkout} cannot build {self.model}: {error_summary(error)}"
            ) from error
        try:
            network.load_state_dict(read_weights(Path(self.weights)))
        except RuntimeError as error:
            raise UserError(
                f"{self.weights} does not hold the weights of {self.name}: {error_summary(error)}"
            ) from error
        return network.float().eval().requires_grad_(False)

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return the pooled features of pixels (B, 1 or 3, H, W) uint8, on their device."""
        device = pixels.device
        resized = _resize(in_colour(pixels)).to(device)
        network = self._network.to(device)
        with deterministic_float32(device):
            mean, std = (torch.tensor(values, device=device).reshape(3, 1, 1) for values in (MEAN, STD))
            return Features(network((resized / 255 - mean) / std))


def _resize(pixels: Tensor) -> Tensor:
    """Resize pixels (B, 3, H, W) uint8 with Pillow to (B, 3, 224, 224) uint8 on the CPU."""
    resized = torch.empty(len(pixels), SIZE, SIZE, 3, dtype=torch.uint8)
    for target, image in zip(resized, pixels.movedim(1, -1).cpu().numpy(), strict=True):
        small = Image.fromarray(np.ascontiguousarray(image)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        target.copy_(torch.from_numpy(np.array(small)))
    return resized.movedim(-1, 1)
