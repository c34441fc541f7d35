r"""EMA of the weights over the steps of training, and its reconstruction for widths that were not stored.

With weights theta_j after step j = 1, 2, ..., an EMA follows theta_hat_k = beta_k theta_hat_{k-1} + (1 - beta_k)
theta_k. Its decays beta_k determine it; those of an exponential EMA are constant. The power-function EMA of EDM2 (arXiv
2312.02696, sec. 3 and appendix C) is, for an exponent gamma > 0,

$$\hat\theta_k = \int_0^k p_{k,\gamma}(\tau)\,\theta(\tau)\,d\tau,\qquad
  p_{k,\gamma}(\tau) = \frac{(\gamma + 1)\,\tau^\gamma}{k^{\gamma+1}},\qquad
  \beta_k = \Bigl(1 - \frac1k\Bigr)^{\gamma+1}.$$

The recursion equals the integral: step j has the coefficient (1 - beta_j) beta_{j+1} ... beta_k =
(j^{gamma+1} - (j-1)^{gamma+1}) / k^{gamma+1}, the integral of p over [j - 1, j], where theta is theta_j. Initial
weights have the coefficient 0, as beta_1 = 0. An EMA of exponent gamma is named by its *width*, the standard deviation
of p relative to k: p has mean k (gamma+1)/(gamma+2), mean square k^2 (gamma+1)/(gamma+3), and so

$$\mathrm{width} = \sqrt{\frac{\gamma+1}{(\gamma+2)^2(\gamma+3)}},$$

which falls from 1/sqrt(12) at gamma = 0, the uniform mean, to 0 as gamma grows.

An EMA (k, width) is linear in the trajectory of the weights. So sum_i c_i p_i, of the stored profiles p_i, approximates
any profile p near their span. `coefficients` returns the c that minimise the integral of (sum_i c_i p_i - p)^2, as EDM2
does, with the constraint that their sum is one. Weights that were constant since the start are then reconstructed
exactly, and on random walks the error is two to three times as small (tests/test_ema.py). For m = min(k, n),

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
"""A power-function EMA: its step, from 1, and its relative width."""

WIDEST = 12**-0.5


def exponential(decay: float, step: int) -> float:
    """Return min(decay, (1 + k) / (10 + k)) at step k: in short runs the EMA covers the length of the run."""
    return min(decay, (1 + step) / (10 + step))


def power(exponent: float, step: int) -> float:
    """Return (1 - 1/k)^(exponent + 1), the decay at step k, from 1, of the power-function EMA."""
    return float((1 - 1 / step) ** (exponent + 1))


def exponent(width: float) -> float:
    """Return the exponent gamma > 0 whose profile has this relative width.

    It is the largest root of (gamma+2)^2 (gamma+3) - (gamma+1) / width^2, a cubic in gamma.

    Raises:
        UserError: the width does not lie in (0, 1 / sqrt(12)).
    """
    if not 0 < width < WIDEST:
        raise UserError(f"the width of an EMA must lie between 0 and 1/sqrt(12) = {WIDEST:.4f}, got {width}")
    inverse = width**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def relative_width(exponent: float) -> float:
    """Return the relative width of the profile of an exponent."""
    return float((exponent + 1) ** 0.5 / (exponent + 2) / (exponent + 3) ** 0.5)


def inner_product(one: Profile, other: Profile) -> float:
    """Return the inner product of two profiles, an integral over all times, in 1 / steps."""
    (k, gamma), (n, delta) = ((step, exponent(width)) for step, width in (one, other))
    m = min(k, n)
    overlap: float = (m / k) ** (gamma + 1) * (m / n) ** (delta + 1) / m  # powers of ratios do not overflow
    return (gamma + 1) * (delta + 1) / (gamma + delta + 1) * overlap


def coefficients(stored: Sequence[Profile], wanted: Profile) -> list[float]:
    """Return the coefficients of stored EMA profiles in their best approximation of another; their sum is one.

    Args:
        stored: the profiles to combine.
        wanted: the profile to approximate. Its step may lie between stored ones, not after the last.

    Raises:
        UserError: no profile is stored, one is given twice, the wanted step is after all stored ones, or a width is out
            of range.
    """
    if not stored or len(set(stored)) < len(stored) or min(step for step, _ in [*stored, wanted]) < 1:
        raise UserError(f"an EMA at {wanted} needs stored EMA that differ, each of a step from 1; got {list(stored)}")
    if wanted[0] > (last := max(step for step, _ in stored)):
        raise UserError(f"an EMA at step {wanted[0]} needs one stored then or later, the last is of step {last}")
    length = [inner_product(one, one) ** 0.5 for one in stored]
    count = len(stored)
    system, right = np.zeros((count + 1, count + 1)), np.ones(count + 1)
    for i, one in enumerate(stored):
        system[i, :count] = [inner_product(one, other) / length[i] / length[j] for j, other in enumerate(stored)]
        system[i, count] = system[count, i] = length[-1] / length[i]  # the constraint, with its multiplier
        right[i] = inner_product(one, wanted) / length[i]
    right[count] = length[-1]
    solution = np.linalg.lstsq(system, right, rcond=None)[0][:count]
    return [float(coefficient / scale) for coefficient, scale in zip(solution, length, strict=True)]


def misfit(stored: Sequence[Profile], wanted: Profile) -> float:
    """Return the distance of the best approximation from the wanted profile, relative to the norm of that profile.

    Zero is a perfect fit. If it is above about 0.1, store more EMA, or choose a step and a width nearer to stored ones.
    """
    c = np.array(coefficients(stored, wanted))
    gram = np.array([[inner_product(one, other) for other in stored] for one in stored])
    cross = np.array([inner_product(one, wanted) for one in stored])
    square = inner_product(wanted, wanted)
    return float(np.sqrt(max(0.0, c @ gram @ c - 2 * c @ cross + square) / square))


def reconstruct(snapshots: Mapping[Profile, Mapping[str, Tensor]], wanted: Profile) -> dict[str, Tensor]:
    """Return the state dict of an EMA that was not stored.

    Args:
        snapshots: the stored EMA weights by profile. They are read one at a time, so a mapping that loads them from
            checkpoints needs memory for one of them, and for the sum in float64.
        wanted: step and width of the EMA to reconstruct.

    Raises:
        UserError: as `coefficients`, or the snapshots are of different networks.
    """
    stored = sorted(snapshots)
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for one, coefficient in zip(stored, coefficients(stored, wanted), strict=True):
        state = snapshots[one]
        shapes = {name: value.shape for name, value in state.items()}
        if total and shapes != {name: value.shape for name, value in total.items()}:
            raise UserError(f"the EMA of step {one[0]} and width {one[1]} is of another network than the others")
        for name, value in state.items():
            types[name] = value.dtype
            if value.is_floating_point():
                total[name] = total.get(name, 0) + coefficient * value.double()
            else:
                total[name] = value  # such as counters: the last one is returned
    return {name: value.to(types[name]) for name, value in total.items()}


def decays(ema: EMA) -> dict[str, Callable[[int], float]]:
    """Return the decay of each EMA of a recipe as a function of the step, by the name of the EMA.

    `ema` has the decay `ema.decay`; `ema-0.99` and `width-0.05` are those of `more` and `widths`.

    Raises:
        UserError: an EMA is given twice, or a width is out of range.
    """
    named = dict(zip(ema.names, [ema.decay, *ema.more], strict=False))
    if len({ema.decay, *ema.more}) + len({*ema.widths}) < len(ema.names):
        raise UserError(
            f"ema: give each decay and width once, got decays {[ema.decay, *ema.more]} and widths {list(ema.widths)}"
        )
    widths = dict(zip(ema.names[len(named) :], ema.widths, strict=True))
    exponentials: dict[str, Callable[[int], float]] = {
        name: partial(exponential, decay) for name, decay in named.items()
    }
    return exponentials | {name: partial(power, exponent(width)) for name, width in widths.items()}


@dataclass(frozen=True, eq=False)
class EMAWeights:
    """The EMA weights of a network, each EMA a copy of the network.

    Args:
        decays: the decay as a function of the step, from 1, by the name of the EMA.
        modules: the copies by name, whose parameters are the EMA. They may be sharded as the network is.
    """

    decays: Mapping[str, Callable[[int], float]]
    modules: Mapping[str, nn.Module]

    @classmethod
    def of(cls, ema: EMA, copy: Callable[[], nn.Module]) -> "EMAWeights":
        """Return the EMA weights of a recipe before the first step; `copy` is called once for each.

        Raises:
            UserError: see `decays`.
        """
        by_name = decays(ema)
        return cls(by_name, {name: copy().requires_grad_(False).eval() for name in by_name})

    @torch.no_grad()
    def update(self, step: int, parameters: Iterable[Tensor]) -> None:
        """Update every EMA with the parameters after a step, from 1, by one fused operation for each EMA."""
        current = [*parameters]
        for name, module in self.modules.items():
            torch._foreach_lerp_([*module.parameters()], current, 1 - self.decays[name](step))

    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """Return the state dict of every EMA by name. The tensors are not copied."""
        return {name: module.state_dict() for name, module in self.modules.items()}

    def load(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Load state dicts as `state_dicts` returns them.

        Raises:
            KeyError: one is missing.
            RuntimeError: one is of another network.
        """
        for name, module in self.modules.items():
            module.load_state_dict(states[name])
