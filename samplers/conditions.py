"""Conditions of networks: a tensor whose rows belong to the samples, or dicts, tuples and lists of such, nested.

What else is in them, None or a number, is the same for all rows and handed on as it is.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def mapped(function: Callable[..., Tensor], conditions: Any, *others: Any) -> Any:
    """Return the conditions of which each tensor is the function of that and of those in the same place of others.

    Raises:
        ValueError: others that are not built as the conditions are.
    """
    if isinstance(conditions, Tensor):
        return function(conditions, *others)
    if isinstance(conditions, dict):
        for other in others:
            if not isinstance(other, dict) or other.keys() != conditions.keys():
                raise ValueError(f"give dicts with the keys {', '.join(map(str, conditions))}, got {_named(other)}")
        return {key: mapped(function, value, *(o[key] for o in others)) for key, value in conditions.items()}
    if isinstance(conditions, (tuple, list)):
        for other in others:
            if not isinstance(other, (tuple, list)) or len(other) != len(conditions):
                raise ValueError(f"give a sequence of {len(conditions)} conditions, got {_named(other)}")
        made = [mapped(function, *each) for each in zip(conditions, *others, strict=True)]
        return type(conditions)(*made) if hasattr(conditions, "_fields") else type(conditions)(made)
    return conditions


def check_rows(conditions: Any, count: int) -> None:
    """Raise ValueError unless every tensor of the conditions has `count` rows."""
    for one in _tensors(conditions):
        if not one.ndim or len(one) != count:
            shape = "" if one.ndim == 1 else f" in a condition of shape {tuple(one.shape)}"
            raise ValueError(f"there are {len(one) if one.ndim else 'no'} labels{shape}, and x has {count} rows")


def rows_of_conditions(conditions: Any, index: Tensor) -> Any:
    """Return the conditions of the rows `index` (N,)."""
    return mapped(lambda one: one[index], conditions)


def null_of(null: Any, conditions: Any) -> Any:
    """Return the null conditions as such for every row: of the shapes, dtypes and devices of the conditions.

    Args:
        null: a number for all that the conditions are made of; or a tensor, of a condition's shape or of one row's; or
            these in dicts, tuples and lists, as the conditions are.
        conditions: of tensors (B, ...).

    Raises:
        ValueError: null conditions of another shape.
    """
    if isinstance(null, (bool, int, float)):
        return mapped(lambda one: torch.full_like(one, null), conditions)
    return mapped(_null_of_tensor, conditions, null)


def _null_of_tensor(condition: Tensor, null: Any) -> Tensor:
    if isinstance(null, (bool, int, float)):
        return torch.full_like(condition, null)
    if not isinstance(null, Tensor):
        raise ValueError(f"give a number or a tensor for the null of a condition, got {_named(null)}")
    try:
        return null.to(condition.device, condition.dtype).expand(condition.shape)
    except RuntimeError:
        raise ValueError(
            f"the null of a condition of shape {tuple(condition.shape)} has that shape or one row's, "
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


def _named(thing: Any) -> str:
    return f"a dict with the keys {', '.join(map(str, thing))}" if isinstance(thing, dict) else type(thing).__name__
