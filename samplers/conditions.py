"""Operations on the conditions of networks: tensors (B, ...), or nested dicts, tuples and lists of such tensors.

Other leaves, such as None or numbers, are the same for all rows and are passed on unchanged.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def map_conditions(function: Callable[..., Tensor], conditions: Any, *others: Any) -> Any:
    """Apply a function to each tensor of the conditions and the leaves of `others` at the same place, as a tree map.

    Raises:
        ValueError: `others` do not have the structure of the conditions.
    """
    if isinstance(conditions, Tensor):
        return function(conditions, *others)
    if isinstance(conditions, dict):
        for other in others:
            if not isinstance(other, dict) or other.keys() != conditions.keys():
                raise ValueError(f"give dicts with the keys {', '.join(map(str, conditions))}, got {_describe(other)}")
        return {key: map_conditions(function, value, *(o[key] for o in others)) for key, value in conditions.items()}
    if isinstance(conditions, (tuple, list)):
        for other in others:
            if not isinstance(other, (tuple, list)) or len(other) != len(conditions):
                raise ValueError(f"give a sequence of {len(conditions)} conditions, got {_describe(other)}")
        values = [map_conditions(function, *each) for each in zip(conditions, *others, strict=True)]
        return type(conditions)(*values) if hasattr(conditions, "_fields") else type(conditions)(values)
    return conditions


def check_rows(conditions: Any, count: int) -> None:
    """Raise ValueError unless every tensor of the conditions has `count` rows."""
    for condition in _tensors(conditions):
        if not condition.ndim or len(condition) != count:
            shape = "" if condition.ndim == 1 else f" in a condition of shape {tuple(condition.shape)}"
            labels = len(condition) if condition.ndim else "no"
            raise ValueError(f"there are {labels} labels{shape}, and x has {count} rows")


def select_rows(conditions: Any, index: Tensor) -> Any:
    """Return the conditions of the rows `index`, (N,)."""
    return map_conditions(lambda condition: condition[index], conditions)


def null_conditions(null: Any, conditions: Any) -> Any:
    """Return the null condition expanded to every row, with the shapes, dtypes and devices of the conditions.

    Args:
        null: a number, which fills every tensor; or a tensor of the shape of a condition or of one row of it; or dicts,
            tuples and lists of them with the structure of the conditions.
        conditions: the conditions, with tensors (B, ...).

    Raises:
        ValueError: `null` does not match the structure or the shapes of the conditions.
    """
    if isinstance(null, (bool, int, float)):
        return map_conditions(lambda condition: torch.full_like(condition, null), conditions)
    return map_conditions(_null_tensor, conditions, null)


def _null_tensor(condition: Tensor, null: Any) -> Tensor:
    if isinstance(null, (bool, int, float)):
        return torch.full_like(condition, null)
    if not isinstance(null, Tensor):
        raise ValueError(f"give a number or a tensor for the null of a condition, got {_describe(null)}")
    try:
        return null.to(condition.device, condition.dtype).expand(condition.shape)
    except RuntimeError:
        raise ValueError(
            f"the null of a condition of shape {tuple(condition.shape)} must have that shape or the shape of one row, "
            f"got {tuple(null.shape)}"
        ) from None


def _tensors(conditions: Any) -> Iterator[Tensor]:
    if isinstance(conditions, Tensor):
        yield conditions
    elif isinstance(conditions, dict):
        for value in conditions.values():
            yield from _tensors(value)
    elif isinstance(conditions, (tuple, list)):
        for value in conditions:
            yield from _tensors(value)


def _describe(thing: Any) -> str:
    return f"a dict with the keys {', '.join(map(str, thing))}" if isinstance(thing, dict) else type(thing).__name__
