"""Steps of SDE solvers as normal distributions of the next state, and their log-densities."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .one_step import StochasticStep, check_increasing
from .protocols import NoiseSource, Solver
from .states import check_states, flatten_rows, upcast
from .transforms import is_batched


class Transition(NamedTuple):
    """The distribution of the state at time s given the state at time t: normal, with independent components."""

    mean: Tensor
    """(B, *), float32 at least."""
    std: Tensor
    """The standard deviation. It has a shape that broadcasts to the mean: (), (B, 1, ...) or (B, *)."""

    def log_prob(self, y: Tensor, /) -> Tensor:
        """Return the log-density of states y (B, *) at time s, (B,), in nats, summed over all dimensions.

        It is differentiable with respect to y and to everything that the mean and the standard deviation depend on. In
        float32 it has the rounding error of a sum of that size: 0.004 for 65,536 dimensions. Give y in float64 for more
        digits.

        Raises:
            ValueError: y is not a tensor of the shape of the mean, or the standard deviation is 0.
        """
        check_states(y)
        if y.shape != self.mean.shape:
            raise ValueError(
                f"the state must have the shape of the mean, {tuple(self.mean.shape)}, got {tuple(y.shape)}"
            )
        _check_std(self.mean, self.std)
        readable = self.std.device.type != "meta" and not torch.compiler.is_compiling() and not is_batched(self.std)
        if readable and not (self.std > 0).all():
            raise ValueError(
                "a step with standard deviation 0 has no density: evaluate only steps at which w > 0, "
                "and leave out a last step to sigma = 0"
            )
        std = self.std.to(torch.promote_types(self.std.dtype, y.dtype))
        z = (upcast(y) - self.mean) / std
        return -flatten_rows(z**2 / 2 + std.log() + math.log(2 * math.pi) / 2).sum(1)


class TransitionStep(StochasticStep):
    """The base class of one-step solvers whose step is mean + std noise, so that it has a density.

    Subclasses define `transition`, and `noise` as a field: a `NoiseSource` that is called with x in float32 at least.
    Multiply states by functions of the times with `column`.
    """

    noise: NoiseSource

    @abstractmethod
    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s > t, given the state x (B, *) at time t.

        Times are scalars or have shape (B,), one per row. NFE: one.
        """

    def step(self, x: Tensor, t: Tensor, s: Tensor, /) -> Tensor:
        """Return the state at time s > t, mean + std noise."""
        mean, std = self.transition(x, t, s)
        _check_std(mean, std)
        return mean + std * self.noise(x.to(mean.dtype), t, s)


def log_probs(solver: Solver, states: Sequence[Tensor] | Tensor, times: Tensor) -> Tensor:
    """Return the log-density of each step of a stored trajectory, (N, B), in nats, summed over the dimensions.

    It is differentiable with respect to the network and the states, so it gives the probability ratios of policy
    gradients. NFE: one per step. For one step at a time, which needs less memory for gradients, use
    `solver.transition(x, t, s).log_prob(y)`.

    States in half precision are rounded, and the rounding error is divided by std: store trajectories in float32.

    Args:
        solver: a solver with a method `transition`: `EulerMaruyama`, `ExponentialEuler`, `Ancestral`,
            `LearnedAncestral`, or another `TransitionStep`.
        states: the N + 1 states of a trajectory, (B, *) each, as `trajectory` returns.
        times: their times, (N + 1,).

    Raises:
        ValueError: the solver has no transition density, or a step has none (w = 0, or sigma = 0 at its end);
            there is not one state for each time; states differ in shape; or `times` is not an increasing grid.
    """
    if isinstance(solver, type) or not hasattr(solver, "transition"):
        name = f"the class {solver.__name__}" if isinstance(solver, type) else type(solver).__name__
        raise ValueError(
            f"{name} has no transition density: use a solver whose step is mean + std noise, "
            "which are EulerMaruyama, ExponentialEuler, Ancestral and LearnedAncestral"
        )
    grid = check_increasing(times)
    if len(states) != len(grid) or len(grid) < 2:
        raise ValueError(f"give one state for each of at least two times, got {len(states)} states, {len(grid)} times")
    rows = []
    for n, ((x, y), (t, s)) in enumerate(zip(pairwise(states), pairwise(grid), strict=True)):
        transition = Transition(*solver.transition(x, t, s))
        try:
            rows.append(transition.log_prob(y))
        except ValueError as error:
            raise ValueError(f"step {n}, from t = {float(t):.6g} to {float(s):.6g}: {error}") from error
    return torch.stack(rows)


def _check_std(mean: Tensor, std: Tensor) -> None:
    """Raise ValueError unless std is a tensor whose rows are those of the mean, (B, *)."""
    if isinstance(std, Tensor) and std.ndim in (0, mean.ndim):
        return
    given = f"shape {tuple(std.shape)}" if isinstance(std, Tensor) else type(std).__name__
    raise ValueError(
        f"std must be a tensor of shape (), (B, 1, ...) or that of the mean, {tuple(mean.shape)}, got {given}: use "
        "samplers.column(std, x)"
    )
