"""What the extractors share: how packages and weights are had, and how a network computes."""

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
    """Return modules that an extractor needs.

    Args:
        kind: the extractor.
        extra: of sitkit, that installs them.
        modules: their names, those of their distributions but for hyphens.

    Raises:
        UserError: one is not installed, or cannot be imported.
    """
    if any(find_spec(module) is None for module in modules):
        names = " and ".join(module.replace("_", "-") for module in modules)
        raise UserError(f"features '{kind}' needs {names}: pip install 'sitkit[{extra}]'")
    found = []
    for module in modules:
        try:
            with warnings.catch_warnings():  # of old packages about themselves
                warnings.simplefilter("ignore")
                found.append(importlib.import_module(module))
        except Exception as error:  # a torchvision made for another torch raises RuntimeError, OSError, and more
            raise UserError(
                f"features '{kind}' needs {module.replace('_', '-')}, which is installed but cannot be imported "
                f"({error_summary(error)}): install the one made for torch {torch.__version__}"
            ) from error
    return found


def check_file(kind: str, field: str, file: str) -> None:
    """Raise a Problem unless a file that a field names is there."""
    if not Path(file).is_file():
        raise UserError(f"features '{kind}': there is no file {file}: give the path of one as {field}")


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, on the CPU; no code in it is run.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises what zip files, pickles and tensors do
        raise UserError(f"{file} should hold weights, as torch.save writes them: {error_summary(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file} should hold a state dict: names and tensors, and nothing else")
    return state


def error_summary(error: BaseException) -> str:
    """Return what an error says, in one line that is not too long."""
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def deterministic_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 and nothing less, without gradients, and alike each time.

    That is: no autocast, no TF32 or bfloat16 inside matmuls and convolutions, whatever training has set, and no
    algorithm that is chosen by its speed.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        with float32_math("ieee"), torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
