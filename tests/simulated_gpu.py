"""A simulated GPU: tensors report the device `cuda:0`, and their values are on the CPU.

Operations that mix devices raise, as with CUDA, and operations that wait for the device are counted. The values are
real, so decisions that depend on them are those of a GPU.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

GPU = torch.device("cuda:0")
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
ANSWERS = (
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.unique_dim.default,
)
"""Operations that wait for the device: their result is a Python number or a shape."""


class MixedDevicesError(RuntimeError):
    """An operation received tensors of two devices."""


class OnGPU(Tensor):
    """A tensor that reports to be on the GPU. For C++ it is on `meta`, so no kernel computes with it by mistake."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "OnGPU":
        with _disable_current_modes():
            shape = torch.empty_strided(numbers.shape, numbers.stride(), dtype=numbers.dtype, device="meta")
            made: OnGPU = torch.Tensor._make_subclass(cls, shape, False, dispatch_device=False)
        made.numbers = numbers
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def tolist(self) -> Any:
        WAITS[f"tolist {_place()}"] += 1
        return self.numbers.tolist()

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"device": GPU, "dtype": self.dtype, **options})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(function, args, kwargs or {})


WAITS: Counter[str] = Counter()
"""How often the process waited for the GPU, by operation and line."""


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        concerned = OnGPU in types or _is_gpu(kwargs.get("device"))
        return _run(function, args, kwargs) if concerned else function(*args, **kwargs)


def _place() -> str:
    """Return the line of sitkit that called."""
    frame = sys._getframe(2)
    while frame.f_back is not None and "sitkit" not in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    return f"at {frame.f_globals.get('__name__')}:{frame.f_lineno}"


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, and count waits and refuse mixed devices as a GPU would."""
    flat, tree = pytree.tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, Tensor)]
    on_gpu = {id(one.numbers): one for one in tensors if isinstance(one, OnGPU)}
    _check_devices(function, args, tensors, bool(on_gpu))
    device = kwargs.get("device")
    if on_gpu and function in ANSWERS:
        WAITS[f"{function} {_place()}"] += 1
    if function in COPIES:
        _count_copy(function, args, kwargs)
    numbers = [_of_cpu(one) for one in flat]
    args, kwargs = pytree.tree_unflatten(numbers, tree)
    kwargs = {key: value for key, value in kwargs.items() if key not in ("pin_memory", "non_blocking")}
    result = function(*args, **kwargs)
    stays = (device is not None and not _is_gpu(device)) or not (on_gpu or _is_gpu(device))
    if stays or function is aten._local_scalar_dense.default:
        return result
    wrap: Callable[[Tensor], Tensor] = lambda one: on_gpu[id(one)] if id(one) in on_gpu else OnGPU(one)  # noqa: E731
    return pytree.tree_map_only(Tensor, wrap, result)


def _of_cpu(one: Any) -> Any:
    if isinstance(one, OnGPU):
        return one.numbers
    return torch.device("cpu") if isinstance(one, torch.device) and _is_gpu(one) else one


def _check_devices(function: Any, args: Any, tensors: list[Tensor], on_gpu: bool) -> None:
    strangers = [one for one in tensors if not isinstance(one, OnGPU)]
    if not on_gpu or not strangers or function in COPIES:
        return
    if function in INDEXED:  # indices may be on the CPU and are copied
        values = [*args[2:3]]
        if all(isinstance(one, OnGPU) or not isinstance(one, Tensor) or not one.ndim for one in [args[0], *values]):
            WAITS[f"{function} with indices of the CPU {_place()}"] += 1
            return
    if any(one.ndim for one in strangers) or torch.Tag.pointwise not in function.tags:
        shapes = [tuple(one.shape) for one in strangers]
        raise MixedDevicesError(f"{function}: tensors of cuda:0, and of the CPU with shapes {shapes}, {_place()}")


def _count_copy(function: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Count a copy between devices, unless it comes from pinned memory and does not wait."""
    if function is aten.copy_.default:
        source, arrives = args[1], isinstance(args[0], OnGPU)
        free = len(args) > 2 and args[2]
    else:
        source = args[0]
        arrives = isinstance(source, OnGPU) if kwargs.get("device") is None else _is_gpu(kwargs["device"])
        free = kwargs.get("non_blocking", False)
    if arrives != isinstance(source, OnGPU) and not (arrives and free and hasattr(source, "pinned")):
        WAITS[f"copy to {'GPU' if arrives else 'CPU'} {_place()}"] += 1


def _pin(tensor: Tensor, *_: Any) -> Tensor:
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _through_the_cpu(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a `torch.tensor` or `torch.as_tensor` that creates a tensor on the CPU and sends it to the GPU."""

    def made(data: Any, *args: Any, device: Any = None, **options: Any) -> Tensor:
        if isinstance(data, OnGPU) and device is None:
            return data.to(options.get("dtype", data.dtype))
        where = "cpu" if _is_gpu(device) else device
        tensor = make(data, *args, **options, **({} if where is None else {"device": where}))
        return tensor.to(GPU) if _is_gpu(device) else tensor

    return made


@contextmanager
def simulate_gpu() -> Iterator[Counter[str]]:
    """Simulate the device `cuda:0`, and yield the number of waits for it by operation and line."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    WAITS.clear()
    try:
        with (
            patch.object(torch.cuda, "_lazy_init", lambda: None),
            patch.object(Tensor, "pin_memory", _pin),
            patch.object(torch, "tensor", _through_the_cpu(torch.tensor)),
            patch.object(torch, "as_tensor", _through_the_cpu(torch.as_tensor)),
            _Mode(),  # type: ignore[no-untyped-call]
        ):
            yield WAITS
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
