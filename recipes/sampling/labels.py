"""Which class each sample is of, as a function of its number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..support import random_streams
from ..support.errors import UserError
from ..support.names import did_you_mean

Rule = Literal["balanced", "random"]


@dataclass(frozen=True)
class Labels:
    """The labels of samples, by a rule.

    `balanced` takes every class in turn, or the named ones; `random` draws each label, uniformly, as a function of the
    seed and the sample's number. Balanced labels give an FID that is lower by a tenth or so (RAE, SFD table 13).

    Args:
        classes: the names of all classes, by label; none if there are no labels.
        rule: see above.
        named: the classes to take, by name; all if none is named.

    Raises:
        UserError: there is no class of such a name.
    """

    classes: tuple[str, ...]
    rule: Rule = "balanced"
    named: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.named:
            if name not in self.classes:
                near, known = did_you_mean(name, [*self.classes]), ", ".join(self.classes) or "none"
                raise UserError(f"no class '{name}'{near}; known: {known}")

    def __call__(self, seed: int, numbers: Tensor) -> Tensor | None:
        """Return the labels, (B,) int64, of samples (B,); None if there are no classes."""
        if not self.classes:
            return None
        chosen = self.chosen
        if self.rule == "balanced":
            return chosen[numbers % len(chosen)]
        drawn = random_streams.uniforms(seed, random_streams.Stream.LABEL, numbers, (1,))[:, 0]
        return chosen[(drawn.double() * len(chosen)).long()]

    @property
    def chosen(self) -> Tensor:
        """The labels that occur, (K,) int64."""
        return torch.tensor([self.classes.index(name) for name in self.named or self.classes], dtype=torch.int64)

    def __str__(self) -> str:
        """Return the rule in words, for a manifest."""
        if not self.classes:
            return "none"
        return {"balanced": "in turn", "random": "random"}[self.rule] + _of(self.named)


def _of(named: Sequence[str]) -> str:
    return f", of {', '.join(named)}" if named else ", of all classes"
