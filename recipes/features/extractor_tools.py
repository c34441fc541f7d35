"""Helpers of the extractors: optional packages, files of weights, and deterministic float32 inference."""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..support.errors import UserError
from ..support.torch_settings import float32_math


def require_modules(kind: str, extra: str, *modules: str) -> list[Any]:
    """Import the modules that an extractor needs.

    Args:
        kind: the name of the extractor.
        extra: the extra of sitkit that installs them.
        modules: their names, which are those of their distributions with underscores for hyphens.

    Raises:
        UserError: a module is not installed, or cannot be imported.
    """
    if any(find_spec(module) is None for module in modules):
        names = " and ".join(module.replace("_", "-") for module in modules)
        raise UserError(f"features '{kind}' needs {names}: pip install 'sitkit[{extra}]'")
    found = []
    for module in modules:
        try:
            with warnings.catch_warnings():  # deprecation warnings of old packages
                warnings.simplefilter("ignore")
                found.append(importlib.import_module(module))
        except Exception as error:  # a torchvision built for another torch raises RuntimeError, OSError, and more
            raise UserError(
                f"features '{kind}' needs {module.replace('_', '-')}, which is installed but cannot be imported "
                f"({error_summary(error)}): install the one built for torch {torch.__version__}"
            ) from error
    return found


def check_file(kind: str, field: str, file: str) -> None:
    """Raise UserError unless the file that a field names exists."""
    if not Path(file).is_file():
        raise UserError(f"features '{kind}': there is no file {file}: set {field} to the path of one")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Load the state dict in a file, on the CPU, without running code in it.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what zip files, pickles and tensors do
        raise UserError(f"{file} must hold weights written by torch.save: {error_summary(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} must hold a state dict of names and tensors")
    return state


def error_summary(error: BaseException) -> str:
    """Return the message of an error in one line of limited length."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def deterministic_float32(device: torch.device) -> Iterator[None]:
    """Compute in full float32, without gradients, and deterministically.

    This disables autocast, TF32 and bfloat16 in matmuls and convolutions, and cuDNN's benchmarking, whatever training
    has set.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        with float32_math("ieee"), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
