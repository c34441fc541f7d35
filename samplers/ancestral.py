"""Ancestral sampling, DDPM's sampler.

Each step draws the next state from its posterior given the current state and the predicted data
(`Interpolant.posterior`; DDPM, arXiv 2006.11239, eq. 6-7). Both classes run on any grid. DiT's 250 of 1,000 steps are
`DDPM().times(250)`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .noise import white
from .one_step import at, check_step
from .path_from_noise import check_from_noise
from .protocols import Field, NoiseSource, Path
from .states import column, upcast
from .transforms import is_batched
from .transition import Transition, TransitionStep


@dataclass(frozen=True)
class Ancestral(TransitionStep):
    """Ancestral sampling with the posterior variance. Weak order 1, NFE: one per step.

    It is the first-order exponential solver of the SDE with w = `KL`, as `DDIM` is for w = 0, and is finite at t = 0.
    """

    order: ClassVar[int] = 1
    velocity: Field
    path: Path
    noise: NoiseSource = white

    def __post_init__(self) -> None:
        check_from_noise(self.path, type(self).__name__)

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s > t."""
        t, s = check_step(t, s)
        data = self.path.data_from_velocity(at(self.velocity, x, t), x, t)
        posterior = self.path.posterior(t, s)
        mean = column(posterior.data, x) * data + column(posterior.state, x) * upcast(x)
        std = self.path.sigma(s) * posterior.forward.sqrt() / self.path.sigma(t)  # differentiable at sigma = 0
        return Transition(mean, column(std, x))


@dataclass(frozen=True)
class LearnedAncestral(TransitionStep):
    r"""Ancestral sampling with a predicted variance (Nichol and Dhariwal, arXiv 2102.09672, eq. 15). NFE: one per step.

    The model returns (B, 2 C, ...) for states (B, C, ...): the noise, and a value r in [-1, 1] that interpolates the
    log-variance between those of the posterior (r = -1) and of the forward chain (r = 1). A step to sigma = 0 adds no
    noise. Start at a time at which alpha > 0.
    """

    order: ClassVar[int] = 1
    model: Field
    path: Path
    noise: NoiseSource = white

    def __post_init__(self) -> None:
        check_from_noise(self.path, type(self).__name__)

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s > t.

        Raises:
            ValueError: the model does not return twice the channels of x, or alpha(t) = 0.
        """
        t, s = check_step(t, s)
        mean, log_variance = self.distribution(x, t, s)
        std, sigma = (log_variance / 2).exp(), column(self.path.sigma(s), x)
        if not sigma.ndim and not is_batched(sigma):
            return Transition(mean, torch.zeros_like(std) if sigma == 0 else std)
        return Transition(mean, torch.where(sigma == 0, 0.0, std))

    def distribution(self, x: Tensor, t: Tensor, s: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance, both (B, C, ...), of the state at time s > t.

        Raises:
            ValueError: the model does not return twice the channels of x, or alpha(t) = 0.
        """
        output = at(self.model, x, t)
        if x.ndim < 2 or output.shape != (len(x), 2 * x.shape[1], *x.shape[2:]):
            raise ValueError(
                f"the model must return noise and variance range in twice the channels of x, got {tuple(output.shape)} "
                f"for x {tuple(x.shape)}"
            )
        eps, fraction = torch.chunk(output, 2, dim=1)
        alpha = self.path.alpha(t)
        readable = alpha.device.type == "cpu" and not torch.compiler.is_compiling() and not is_batched(alpha)
        if readable and (alpha == 0).any():
            raise ValueError(
                f"the conversion from noise to data is not finite at t = {float(t[alpha == 0][0]):.6g}, where "
                "alpha = 0: start later, or use a path with alpha(0) > 0, such as DDPM"
            )
        data = (x - column(self.path.sigma(t), x) * eps) / column(alpha, x)
        posterior = self.path.posterior(t, s)
        low, high = (column(v.log(), x) for v in (posterior.variance.clamp(min=1e-20), posterior.forward))
        mean = column(posterior.data, x) * data + column(posterior.state, x) * upcast(x)
        return mean, low + (high - low) * (fraction + 1) / 2
