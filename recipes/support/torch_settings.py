"""Context managers for global settings of torch: the precision of float32, and deterministic algorithms."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch

from .errors import UserError

_backends: Any = torch.backends
FLOAT32_SETTINGS = (
    _backends.cuda.matmul,
    _backends.cudnn.conv,
    _backends.cudnn.rnn,
    _backends.mkldnn.matmul,
    _backends.mkldnn.conv,
)
"""The settings of torch for the precision of float32 inside matmuls and convolutions."""


@contextmanager
def float32_math(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Compute matmuls and convolutions of float32 in float32, or in TF32 where the device has it.

    torch has two interfaces for this setting. The older one (`set_float32_matmul_precision`, `allow_tf32`) also sets
    the newer one (`fp32_precision`), but the newer one does not set the older one, and torch raises where they differ.
    Therefore both are set, and only the newer one is read, which never raises. Both are restored afterwards.
    """
    before = [setting.fp32_precision for setting in FLOAT32_SETTINGS]
    matmul, cudnn = "highest", True
    with suppress(RuntimeError):  # the interfaces differ already; kernels use the newer one
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = _backends.cudnn.allow_tf32
    try:
        _set("high" if precision == "tf32" else "highest", precision == "tf32", [precision] * len(FLOAT32_SETTINGS))
        yield
    finally:
        _set(matmul, cudnn, before)


def _set(matmul: str, cudnn: bool, values: list[str]) -> None:
    torch.set_float32_matmul_precision(matmul)
    _backends.cudnn.allow_tf32 = cudnn
    for setting, value in zip(FLOAT32_SETTINGS, values, strict=True):
        setting.fp32_precision = value


@contextmanager
def deterministic(enabled: bool = True) -> Iterator[None]:
    """Use algorithms whose results repeat to the bit on the same device with the same versions, if `enabled`.

    Raises:
        UserError: an operation has no such algorithm.
    """
    if not enabled:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it on its first use
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise UserError(f"compute.deterministic = true: {str(error).splitlines()[0]}; set it to false") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
