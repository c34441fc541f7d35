"""The base class of paths from noise to data."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from .derivative import derivative
from .linear_combination import linear_combination


class Interpolant(ABC):
    r"""A path $x_t = \alpha(t)\,x + \sigma(t)\,\epsilon$ from noise at t = 0 to data at t = 1.

    Source: SiT, arXiv 2401.08740, eq. 1. Subclasses define `alpha` and `sigma`. Times are scalars or have shape (B,),
    and states have shape (B, *).

    Given $x_t$ and 0 < t < 1, the velocity $v = \dot\alpha x + \dot\sigma\epsilon$, the noise, the score and the data
    determine one another (eq. 9 and appendix A). With $\Delta = \dot\alpha\sigma - \alpha\dot\sigma > 0$,

    $$\epsilon = (\dot\alpha x_t - \alpha v) / \Delta, \quad s = -\epsilon / \sigma, \quad
    x = (\sigma v - \dot\sigma x_t) / \Delta.$$

    A conversion raises ValueError at a time where it is infinite. This is checked only for times on the CPU, to avoid
    a synchronisation with the GPU.

    All six conversions are linear, so they also convert expectations. Coefficients are computed in the dtype of t, and
    results have the dtype of the states, float32 at least.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the coefficient of the data at times t, of t's shape: 0 at t = 0, 1 at t = 1."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the coefficient of the noise at times t, of t's shape: 1 at t = 0, 0 at t = 1."""

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return the derivative of `alpha`, by forward-mode automatic differentiation unless overridden."""
        return derivative(self.alpha, t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        """Return the derivative of `sigma`, by forward-mode automatic differentiation unless overridden."""
        return derivative(self.sigma, t)

    def mix(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the state x_t = alpha x + sigma eps, (B, *)."""
        return self._combine("state", t, self.alpha(t), x, self.sigma(t), eps)

    def velocity(self, x: Tensor, eps: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity alpha_dot x + sigma_dot eps, (B, *)."""
        return self._combine("velocity of a sample", t, self.alpha_dot(t), x, self.sigma_dot(t), eps)

    def noise_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the noise, (B, *). Where alpha = 0 it is x_t / sigma and does not depend on the velocity.

        Raises:
            ValueError: sigma_dot is infinite, so that the velocity does not determine the noise.
        """
        a, b = self._noise_coefficients(t)
        return self._combine("conversion from velocity to noise", t, a, velocity, b, x_t)

    def score_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the score (eq. 9), (B, *). Where alpha = 0 it is -x_t / sigma^2.

        The result is the score only if eps is Gaussian and independent of x.

        Raises:
            ValueError: sigma = 0, where the score is infinite.
        """
        a, b = self._noise_coefficients(t)
        sigma = self.sigma(t)
        return self._combine("conversion from velocity to score", t, -a / sigma, velocity, -b / sigma, x_t)

    def data_from_velocity(self, velocity: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the data, (B, *). Where sigma = 0 they are x_t / alpha and do not depend on the velocity.

        Raises:
            ValueError: alpha_dot and alpha are 0, so that the velocity does not determine the data.
        """
        sigma, delta = self.sigma(t), self._delta(t)
        limit = (sigma == 0) & _zero_or_infinite(delta)  # where sigma = 0, sigma_dot and delta may be infinite
        a = torch.where(limit, 0.0, sigma / delta)
        b = torch.where(limit, 1 / torch.where(limit, self.alpha(t), 1.0), -self.sigma_dot(t) / delta)
        return self._combine("conversion from velocity to data", t, a, velocity, b, x_t)

    def velocity_from_noise(self, eps: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *).

        Raises:
            ValueError: alpha = 0 or sigma_dot is infinite, where the velocity is infinite.
        """
        alpha = self.alpha(t)
        return self._combine(
            "conversion from noise to velocity", t, -self._delta(t) / alpha, eps, self.alpha_dot(t) / alpha, x_t
        )

    def velocity_from_score(self, score: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity (eq. 44), (B, *).

        Raises:
            ValueError: alpha = 0 or sigma_dot is infinite, where the velocity is infinite.
        """
        alpha = self.alpha(t)
        a, b = self.sigma(t) * self._delta(t) / alpha, self.alpha_dot(t) / alpha
        return self._combine("conversion from score to velocity", t, a, score, b, x_t)

    def velocity_from_data(self, data: Tensor, x_t: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity, (B, *).

        Raises:
            ValueError: sigma = 0, where the velocity is infinite.
        """
        sigma = self.sigma(t)
        a, b = self._delta(t) / sigma, self.sigma_dot(t) / sigma
        return self._combine("conversion from data to velocity", t, a, data, b, x_t)

    def posterior(self, t: Tensor, s: Tensor, /) -> "Posterior":
        r"""Return the distribution of x_s given x_t and the data x, for times t < s of one shape.

        It is the posterior of the Markov chain in which $x_t$ is $a x_s$ plus independent noise,
        $a = \alpha_t/\alpha_s$ (DDPM, arXiv 2006.11239, eq. 6-7, generalised to any path). Steps may have any length.
        The reverse chain is that of the SDE with w = KL.
        """
        a, sigma_t, sigma_s = self.alpha(t) / self.alpha(s), self.sigma(t), self.sigma(s)
        forward = sigma_t**2 - (a * sigma_s) ** 2
        share = forward / sigma_t**2
        return Posterior(self.alpha(s) * share, a * (sigma_s / sigma_t) ** 2, share * sigma_s**2, forward)

    def _delta(self, t: Tensor) -> Tensor:
        return self.alpha_dot(t) * self.sigma(t) - self.alpha(t) * self.sigma_dot(t)

    def _noise_coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b such that the noise is a velocity + b x_t."""
        alpha, delta = self.alpha(t), self._delta(t)
        limit = (alpha == 0) & _zero_or_infinite(delta)  # where alpha = alpha_dot = 0, delta is 0
        a = torch.where(limit, 0.0, -alpha / delta)
        b = torch.where(limit, 1 / torch.where(limit, self.sigma(t), 1.0), self.alpha_dot(t) / delta)
        return a, b

    def _combine(self, what: str, t: Tensor, a: Tensor, x: Tensor, b: Tensor, y: Tensor) -> Tensor:
        """Return a x + b y for coefficients of t's shape, () or (B,), and states (B, *).

        Raises:
            ValueError: shapes do not match, or coefficients are not finite. Shapes are checked because broadcasting
                would silently apply times (B,) to the columns of images of width B.
        """
        return linear_combination(t, (a, b), (x, y), lambda wrong: self._not_finite(what, t, wrong))

    def _not_finite(self, what: str, t: Tensor, wrong: Tensor) -> ValueError:
        time = t.detach()[wrong][0]
        names = ("alpha", "sigma", "alpha_dot", "sigma_dot")
        values = ", ".join(f"{name} = {float(getattr(self, name)(time)):.3g}" for name in names)
        cure = (
            "start later, at t = 0.001 or the like"
            if time < 0.5
            else "end before it, at t = 0.999 or the like, or take the last step by a solver that ends on the data"
        )
        return ValueError(f"{self}: the {what} is not finite at t = {float(time):.6g}, where {values}: {cure}")


class Posterior(NamedTuple):
    """The normal distribution of x_s given x_t and x, with mean data x + state x_t. All have the times' shape."""

    data: Tensor
    state: Tensor
    variance: Tensor
    forward: Tensor
    """The variance of x_t given x_s. It is DDPM's upper bound of the variance of x_s given x_t alone."""


def _zero_or_infinite(delta: Tensor) -> Tensor:
    """Return a mask of the values by which a division may give NaN. Other values stay exact and differentiable."""
    return (delta == 0) | ~delta.isfinite()
