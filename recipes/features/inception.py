"""The Inception-v3 feature extractor of ADM's evaluator, for FID, sFID and the Inception score."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..storage.files import sha256
from ..support.errors import UserError
from .extractor_tools import check_file, deterministic_float32, error_summary, read_weights, require_modules
from .protocol import Features, in_colour

KIND = "inception"
MODULES = ("torchvision", "torch_fidelity")
OFFICIAL_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The sha256 of the weights published by torch-fidelity; the name of their file contains its first digits."""
CHANNELS = 7
"""How many channels of the 17x17 feature map are used as spatial features: 2023 in all."""


@dataclass(frozen=True)
class Inception:
    """TensorFlow's Inception of 2015-12-05, converted to PyTorch by torch-fidelity (Szegedy et al., arXiv 1512.00567).

    Pooled features (B, 2048) are those of FID (Heusel et al., arXiv 1706.08500). Spatial features (B, 2023) are the
    first 7 channels of the branch of 1x1 convolutions in Mixed_6d, channels last, as in ADM's sFID (Nash et al., arXiv
    2103.03841; Dhariwal and Nichol, arXiv 2105.05233). Probabilities (B, 1008) are the softmax of the logits without
    their bias, as in ADM's evaluator. Images are resized to 299x299 by the bilinear filter of TensorFlow 1, which is
    not antialiased, and the input of the network is (x - 128) / 128.

    Args:
        weights: the file of weights; `auto` is that of torch-fidelity, which is downloaded to the cache of torch.hub if
            it is not there.

    Raises:
        UserError: the packages `sitkit[eval]` are not installed or cannot be imported, or there is no such file.
    """

    name: ClassVar[str] = "Inception"
    frechet: ClassVar[str] = "FID"
    kernel: ClassVar[str] = "KID"

    weights: str = "auto"

    def __post_init__(self) -> None:
        require_modules(KIND, "eval", *MODULES)
        if self.weights != "auto":
            check_file(KIND, "weights", self.weights)

    def sizes(self, image: tuple[int, int, int], /) -> tuple[int, int]:
        """Return the number of pooled and of spatial features."""
        return 2048, CHANNELS * 17**2

    @cached_property
    def _library(self) -> Any:
        return require_modules(KIND, "eval", *MODULES)[1].feature_extractor_inceptionv3

    @cached_property
    def _file(self) -> Path:
        return Path(self.weights) if self.weights != "auto" else _official_weights(self._library.URL_INCEPTION_V3)

    @cached_property
    def sha256(self) -> str:
        """The sha256 of the file of weights."""
        return sha256(self._file)

    @cached_property
    def _network(self) -> Any:
        safe = io.BytesIO()  # torch-fidelity would run code in a pickle: it gets a copy with the tensors alone
        torch.save(read_weights(self._file), safe)
        safe.seek(0)
        try:
            return self._library.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=safe
            )
        except RuntimeError as error:
            raise UserError(
                f"{self._file} does not hold the weights of torch-fidelity's Inception: {error_summary(error)}"
            ) from error

    def __call__(self, pixels: Tensor, /) -> Features:
        """Return pooled features, spatial features and probabilities of pixels (B, 1 or 3, H, W) uint8."""
        pixels = in_colour(pixels)
        network = self._network.to(pixels.device)
        maps: list[Tensor] = []
        hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output))
        try:
            with deterministic_float32(pixels.device):
                pooled, logits = network(pixels)
        finally:
            hook.remove()
        spatial = maps[0][:, :CHANNELS].movedim(1, -1).flatten(1)
        return Features(pooled, spatial, logits.softmax(1))


def _official_weights(address: str) -> Path:
    """Return the weights published by torch-fidelity, from the cache of torch.hub or downloaded to it.

    Raises:
        UserError: they cannot be downloaded, or the cached file is another one.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[1])
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(file), hash_prefix=OFFICIAL_SHA256, progress=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"features '{KIND}': {file.name} cannot be downloaded ({error_summary(error)}): download it from the "
                "releases of torch-fidelity on another machine, and set weights to its path"
            ) from error
    if sha256(file) != OFFICIAL_SHA256:
        raise UserError(
            f"features '{KIND}': {file} is damaged, or another file: remove it, or set weights to an intact one"
        )
    return file
