"""Settings of torch for as long as a block takes: how float32 is rounded, and whether results repeat to the bit."""

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
"""Where torch keeps how float32 is rounded inside matmuls and convolutions."""


@contextmanager
def float32_math(precision: Literal["ieee", "tf32"]) -> Iterator[None]:
    """Compute matmuls and convolutions of float32 in float32, or in TF32 where the device has it.

    torch has two interfaces for this. The older one (`set_float32_matmul_precision`, `allow_tf32`) also sets the newer
    one (`fp32_precision`), but not the reverse, and torch raises where it finds that they differ: so both are set, and
    only the newer one is read, which never raises. Both are as before afterwards.
    """
    before = [place.fp32_precision for place in FLOAT32_SETTINGS]
    matmul, cudnn = "highest", True
    with suppress(RuntimeError):  # they already differ; what computes goes by the newer interface
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = _backends.cudnn.allow_tf32
    try:
        _set("high" if precision == "tf32" else "highest", precision == "tf32", [precision] * len(FLOAT32_SETTINGS))
        yield
    finally:
        _set(matmul, cudnn, before)


def _set(matmul: str, cudnn: bool, places: list[str]) -> None:
    torch.set_float32_matmul_precision(matmul)
    _backends.cudnn.allow_tf32 = cudnn
    for place, value in zip(FLOAT32_SETTINGS, places, strict=True):
        place.fp32_precision = value


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Use algorithms whose results repeat to the bit, on the same device with the same versions, if that is wanted.

    Raises:
        UserError: an operation has no such algorithm.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS reads when it is first used
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
