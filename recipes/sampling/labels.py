"""Class labels of samples, each a function of the sample's index."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..support import random_streams
from ..support.errors import UserError
from ..support.names import did_you_mean

Rule = Literal["balanced", "random"]
Classes = Tensor | np.ndarray | Sequence[int | str] | int | str
"""Classes of samples: labels (B,) of integers, class names, or one label or name for all samples."""


@dataclass(frozen=True)
class Labels:
    """The rule that gives each sample its class label.

    `balanced` takes the classes in turn. `random` samples each label uniformly, as a function of the seed and the
    sample's index. Balanced labels lower FID by about 0.1 (RAE, SFD table 13).

    Args:
        classes: the names of all classes, by label; empty if the network is unconditional.
        rule: `balanced` or `random`.
        named: the names of the classes to use; empty for all.

    Raises:
        UserError: there is no class with such a name.
    """

    classes: tuple[str, ...]
    rule: Rule = "balanced"
    named: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.named:
            if name not in self.classes:
                near, known = did_you_mean(name, [*self.classes]), ", ".join(self.classes) or "none"
                raise UserError(f"no class '{name}'{near}; known: {known}")

    def __call__(self, seed: int, indices: Tensor) -> Tensor | None:
        """Return the labels, (B,) int64, of samples (B,); None if there are no classes."""
        if not self.classes:
            return None
        chosen = self.chosen
        if self.rule == "balanced":
            return chosen[indices % len(chosen)]
        uniform = random_streams.uniforms(seed, random_streams.Stream.LABEL, indices, (1,))[:, 0]
        return chosen[(uniform.double() * len(chosen)).long()]

    @property
    def chosen(self) -> Tensor:
        """The labels in use, (K,) int64."""
        return torch.tensor([self.classes.index(name) for name in self.named or self.classes], dtype=torch.int64)

    def __str__(self) -> str:
        """Return a description of the rule, for a manifest."""
        if not self.classes:
            return "none"
        return {"balanced": "in turn", "random": "random"}[self.rule] + _class_list(self.named)


def labels_of(classes: Classes, names: tuple[str, ...]) -> Tensor:
    """Return classes as labels, int64: (B,), or () for one class.

    Args:
        classes: labels or names.
        names: the names of all classes, by label.

    Raises:
        UserError: there is no such class.
    """
    listed: Any = classes.tolist() if isinstance(classes, Tensor | np.ndarray) else classes
    several = isinstance(listed, Iterable) and not isinstance(listed, str)
    return torch.tensor([_label(one, names) for one in listed] if several else _label(listed, names), dtype=torch.int64)


def _label(one: object, names: tuple[str, ...]) -> int:
    if isinstance(one, str):
        return int(Labels(names, named=(one,)).chosen[0])
    if not isinstance(one, Integral) or isinstance(one, bool):
        raise UserError(f"labels are (B,) integers, class names, or one for all samples, got {one!r}")
    label = int(one)
    if not 0 <= label < len(names):
        raise UserError(f"label {label} is not between 0 and {len(names) - 1}")
    return label


def _class_list(named: Sequence[str]) -> str:
    return f", of {', '.join(named)}" if named else ", of all classes"
