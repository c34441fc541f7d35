r"""Averages of the weights over the steps of training, and averages that were never kept, made of those that were.

With weights theta_j after step j = 1, 2, ..., every average follows theta_hat_k = beta_k theta_hat_{k-1} +
(1 - beta_k) theta_k, and differs from others by its decays beta_k. An exponential average has a constant one. The
power-function averages of EDM2 (arXiv 2312.02696, sec. 3 and appendix C) are, for an exponent gamma > 0,

$$\hat\theta_k = \int_0^k p_{k,\gamma}(\tau)\,\theta(\tau)\,d\tau,\qquad
  p_{k,\gamma}(\tau) = \frac{(\gamma + 1)\,\tau^\gamma}{k^{\gamma+1}},\qquad
  \beta_k = \Bigl(1 - \frac1k\Bigr)^{\gamma+1}.$$

The recursion is not an approximation of the integral: step j enters with (1 - beta_j) beta_{j+1} ... beta_k =
(j^{gamma+1} - (j-1)^{gamma+1}) / k^{gamma+1}, the integral of p over [j - 1, j], in which theta is theta_j. Initial
weights are forgotten, as beta_1 = 0. An average of exponent gamma is named by its *width*, the standard deviation of p
as a share of k: p has mean k (gamma+1)/(gamma+2), mean square k^2 (gamma+1)/(gamma+3), and so

$$\mathrm{width} = \sqrt{\frac{\gamma+1}{(\gamma+2)^2(\gamma+3)}},$$

which falls from 1/sqrt(12) at gamma = 0, the plain mean, to 0 as gamma grows.

An average (k, width) is linear in the trajectory of the weights, so that sum_i c_i p_i, of averages i that were kept,
averages like any p to which it is near. `weights` chooses the c that minimise the integral of (sum_i c_i p_i - p)^2, as
EDM2 does, but among those whose sum is one: what the weights have kept since the start is then given back exactly, and
on random walks the error is two to three times as small (tests/test_averages.py). For m = min(k, n),

$$\langle p_{k,\gamma}, p_{n,\delta}\rangle
  = \frac{(\gamma+1)(\delta+1)}{\gamma+\delta+1}\;\frac{m^{\gamma+\delta+1}}{k^{\gamma+1}\,n^{\delta+1}}.$$
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ..experiment.recipe import EMA
from ..support.errors import UserError

Profile: TypeAlias = tuple[int, float]
"""An average by its step, from 1, and its relative width."""

WIDEST = 12**-0.5


def exponential(decay: float, step: int) -> float:
    """Return min(decay, (1 + k) / (10 + k)) at step k: short runs are averaged over their own length."""
    return min(decay, (1 + step) / (10 + step))


def power(exponent: float, step: int) -> float:
    """Return (1 - 1/k)^(exponent + 1), the decay at step k, from 1, of the average by powers of the step."""
    return float((1 - 1 / step) ** (exponent + 1))


def exponent(width: float) -> float:
    """Return the exponent gamma > 0 whose profile has this relative width.

    It is the largest root of (gamma+2)^2 (gamma+3) - (gamma+1) / width^2, a cubic in gamma.

    Raises:
        UserError: the width does not lie in (0, 1 / sqrt(12)).
    """
    if not 0 < width < WIDEST:
        raise UserError(f"the width of an average must lie between 0 and 1/sqrt(12) = {WIDEST:.4f}, got {width}")
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def relative_width(exponent: float) -> float:
    """Return the relative width of the profile of an exponent."""
    return float((exponent + 1) ** 0.5 / (exponent + 2) / (exponent + 3) ** 0.5)


def inner_product(one: Profile, other: Profile) -> float:
    """Return the integral over all times of the product of two profiles, in 1 / steps."""
    (k, gamma), (n, delta) = ((step, exponent(width)) for step, width in (one, other))
    m = min(k, n)
    share: float = (m / k) ** (gamma + 1) * (m / n) ** (delta + 1) / m  # powers of ratios do not overflow
    return (gamma + 1) * (delta + 1) / (gamma + delta + 1) * share


def weights(kept: Sequence[Profile], wanted: Profile) -> list[float]:
    """Return the coefficient of each average in the one that is nearest to another; their sum is one.

    Args:
        kept: the averages that there are.
        wanted: the average to make. Its step may lie between kept ones, not after them.

    Raises:
        UserError: nothing is kept, a kept one is named twice, what is wanted lies after all that is kept, or a width
            is out of range.
    """
    if not kept or len(set(kept)) < len(kept) or min(step for step, _ in [*kept, wanted]) < 1:
        raise UserError(f"averages are made of some that differ, each of a step from 1; got {list(kept)} for {wanted}")
    if wanted[0] > (last := max(step for step, _ in kept)):
        raise UserError(f"an average at step {wanted[0]} needs one kept then or later, the last is of step {last}")
    length = [inner_product(one, one) ** 0.5 for one in kept]
    count = len(kept)
    system, right = np.zeros((count + 1, count + 1)), np.ones(count + 1)
    for i, one in enumerate(kept):
        system[i, :count] = [inner_product(one, other) / length[i] / length[j] for j, other in enumerate(kept)]
        system[i, count] = system[count, i] = length[-1] / length[i]  # the constraint, with its multiplier
        right[i] = inner_product(one, wanted) / length[i]
    right[count] = length[-1]
    solution = np.linalg.lstsq(system, right, rcond=None)[0][:count]
    return [float(coefficient / scale) for coefficient, scale in zip(solution, length, strict=True)]


def misfit(kept: Sequence[Profile], wanted: Profile) -> float:
    """Return how far the nearest profile is from the one wanted, as a share of the length of that one.

    Zero is a perfect fit. Above a tenth or so, keep more averages, or ask for a step and a width nearer to them.
    """
    c = np.array(weights(kept, wanted))
    gram = np.array([[inner_product(one, other) for other in kept] for one in kept])
    cross = np.array([inner_product(one, wanted) for one in kept])
    whole = inner_product(wanted, wanted)
    return float(np.sqrt(max(0.0, c @ gram @ c - 2 * c @ cross + whole) / whole))


def reconstruct(snapshots: Mapping[Profile, Mapping[str, Tensor]], wanted: Profile) -> dict[str, Tensor]:
    """Return the state dict of an average that was not kept.

    Args:
        snapshots: the averages that were kept. They are asked for one by one, so that a mapping which reads them from
            checkpoints needs memory for one of them, and for the sum in float64.
        wanted: step and width of the average to make.

    Raises:
        UserError: as `weights`, or the snapshots are not of one network.
    """
    kept = sorted(snapshots)
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for one, coefficient in zip(kept, weights(kept, wanted), strict=True):
        state = snapshots[one]
        shapes = {name: value.shape for name, value in state.items()}
        if total and shapes != {name: value.shape for name, value in total.items()}:
            raise UserError(f"the average of step {one[0]} and width {one[1]} is of another network than the others")
        for name, value in state.items():
            types[name] = value.dtype
            if value.is_floating_point():
                total[name] = total.get(name, 0) + coefficient * value.double()
            else:
                total[name] = value  # such as counters, the last of which holds
    return {name: value.to(types[name]) for name, value in total.items()}


def decays(ema: EMA) -> dict[str, Callable[[int], float]]:
    """Return the averages that a recipe asks for: by name, the decay as a function of the step.

    `ema` is that of `ema.decay`; `ema-0.99` and `width-0.05` are those of `more` and `widths`.

    Raises:
        UserError: an average is asked for twice, or a width is out of range.
    """
    named = dict(zip(ema.names, [ema.decay, *ema.more], strict=False))
    if len({ema.decay, *ema.more}) + len({*ema.widths}) < len(ema.names):
        raise UserError(f"ema: every average once, got decays {[ema.decay, *ema.more]} and widths {list(ema.widths)}")
    widths = dict(zip(ema.names[len(named) :], ema.widths, strict=True))
    exponentials: dict[str, Callable[[int], float]] = {
        name: partial(exponential, decay) for name, decay in named.items()
    }
    return exponentials | {name: partial(power, exponent(width)) for name, width in widths.items()}


@dataclass(frozen=True, eq=False)
class EMAWeights:
    """The averages of a network, each a copy of it.

    Args:
        decays: by name, from the step, from 1, to the decay.
        modules: by name, the copy, whose parameters are the average. They may be sharded, if as the network's are.
    """

    decays: Mapping[str, Callable[[int], float]]
    modules: Mapping[str, nn.Module]

    @classmethod
    def of(cls, ema: EMA, copy: Callable[[], nn.Module]) -> "EMAWeights":
        """Return the averages that a recipe asks for; `copy` makes a network with the first weights, one for each.

        Raises:
            UserError: see `decays`.
        """
        wanted = decays(ema)
        return cls(wanted, {name: copy().requires_grad_(False).eval() for name in wanted})

    @torch.no_grad()
    def update(self, step: int, parameters: Iterable[Tensor]) -> None:
        """Take the parameters after a step, from 1, into every average, by one fused call for each."""
        current = [*parameters]
        for name, module in self.modules.items():
            torch._foreach_lerp_([*module.parameters()], current, 1 - self.decays[name](step))

    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """Return the state dict of every average, by name; the tensors are not copied."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go back to state dicts that `state_dicts` gave.

        Raises:
            KeyError: one is missing.
            RuntimeError: one is of another network.
        """
        for name, module in self.modules.items():
            module.load_state_dict(states[name])
