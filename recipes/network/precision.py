"""The precision and the compilation of a network, for training and for sampling."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..experiment.field_types import Precision
from ..support.errors import UserError
from ..support.torch_settings import float32_math


def matmul_precision(precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which float32 matmuls run in TF32, if that is the precision, or in full float32."""
    return float32_math("tf32" if precision == "tf32" else "ieee")


def with_precision(precision: Precision, field: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a field whose matmuls and convolutions run in a precision, and whose output is float32."""

    def autocast_field(x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16")
        with matmul_precision(precision), autocast:
            output = field(x, t, **conditions)
        return output.float()

    return autocast_field


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the modules to compile or checkpoint one by one: the blocks of a network, or itself if it has none."""
    return [*getattr(network, "blocks", ())] or [network]


def compile_blocks(network: nn.Module) -> None:
    """Compile the blocks of a network in place. Each compiles at its first call, and equal blocks only once.

    Raises:
        UserError: there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"compute.compile = true needs a C++ compiler, and there is no {compiler}: set it to false")
    dynamo: Any = import_module("torch._dynamo.config")
    dynamo.optimize_ddp = False  # which splits blocks under DDP, so that gradients are sent during the backward pass
    for block in blocks_of(network):
        block.forward = torch.compile(block.forward)
