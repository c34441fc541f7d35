"""How a network is computed: in which precision, and compiled or not. Training and sampling share it."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..experiment.recipe import Precision
from ..support.errors import UserError
from ..support.torch_settings import float32_math


def matmuls(precision: Precision) -> AbstractContextManager[None]:
    """Return the context in which float32 is rounded as a precision says: to TF32, or else not at all."""
    return float32_math("tf32" if precision == "tf32" else "ieee")


def computed_in(precision: Precision, field: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a field whose matmuls and convolutions are of that precision, and whose output is float32."""

    def rounded(x: Tensor, t: Tensor, **conditions: Tensor) -> Tensor:
        with matmuls(precision), torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = field(x, t, **conditions)
        return output.float()

    return rounded


def parts(network: nn.Module) -> list[nn.Module]:
    """Return what is compiled one by one: the blocks of a network, or all of it if it has none."""
    return [*getattr(network, "blocks", ())] or [network]


def compile_parts(network: nn.Module) -> None:
    """Let the parts of a network be compiled, each when it is first called: equal ones once for all of them.

    Raises:
        UserError: there is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"compute.compile = true needs a C++ compiler, and there is no {compiler}: set it to false")
    dynamo: Any = import_module("torch._dynamo.config")
    dynamo.optimize_ddp = False  # or under DDP each part is cut in pieces, so that gradients are sent while it computes
    for part in parts(network):
        part.forward = torch.compile(part.forward)
