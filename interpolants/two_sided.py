"""The base class of paths from one distribution to another."""

import math
from abc import ABC, abstractmethod
from numbers import Real

import torch
from torch import Tensor

from .derivative import derivative
from .linear_combination import linear_combination


class TwoSided(ABC):
    r"""A path $x_t = \alpha(t)\,x + \beta(t)\,x_{src} + \gamma(t)\,z$ from a source at t = 0 to data at t = 1.

    Source: Albergo, Boffi and Vanden-Eijnden, arXiv 2303.08797, definition 1. The noise z is standard normal and
    independent of the pair (x, x_src). The coupling of the pair is free. Subclasses define `alpha`, `beta` and `gamma`.
    Times are scalars or have shape (B,), and states have shape (B, *).

    Two conditional expectations given $x_t$ determine the dynamics: the drift
    $v = E[\dot\alpha x + \dot\beta x_{src} \mid x_t]$ and the noise $\eta = E[z \mid x_t]$. Then

    - the score is $s = -\eta / \gamma$;
    - the velocity is $b = v + \dot\gamma\eta = v - \gamma\dot\gamma s$;
    - the ODE $dx = b\,dt$ and every SDE $dX = (b + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$ have the marginals of $x_t$.

    The score is not a function of b, so that a network needs two outputs, v and eta.

    **Ends.** gamma is 0 at t = 0 and t = 1, where the noise does not determine the score. For gammas such as
    sqrt(t (1 - t)), gamma_dot is infinite there, and eta is 0: the noise does not determine the velocity either.
    The conversions then raise ValueError: use times inside (0, 1). The times are checked only on the CPU, to avoid a
    synchronisation with the GPU. `gamma_gamma_dot` is finite at both ends. To start at a small t > 0 from samples of
    the source, add the noise: x_src + gamma(t) z has the distribution of x_t up to an error of the order of t.

    With gamma = 0 at all times, the path is that of flow matching between two distributions, which has no SDE.

    An `Interpolant` is the special case x_src = 0, gamma = sigma.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Return the coefficient of the data at times t, of t's shape: 0 at t = 0, 1 at t = 1."""

    @abstractmethod
    def beta(self, t: Tensor) -> Tensor:
        """Return the coefficient of the source at times t, of t's shape: 1 at t = 0, 0 at t = 1."""

    @abstractmethod
    def gamma(self, t: Tensor) -> Tensor:
        """Return the coefficient of the noise at times t, of t's shape: 0 at both ends, and positive or 0 between."""

    def alpha_dot(self, t: Tensor) -> Tensor:
        """Return the derivative of `alpha`, by forward-mode automatic differentiation unless overridden."""
        return derivative(self.alpha, t)

    def beta_dot(self, t: Tensor) -> Tensor:
        """Return the derivative of `beta`, by forward-mode automatic differentiation unless overridden."""
        return derivative(self.beta, t)

    def gamma_dot(self, t: Tensor) -> Tensor:
        """Return the derivative of `gamma`, by forward-mode automatic differentiation unless overridden."""
        return derivative(self.gamma, t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        """Return gamma gamma_dot. Unless overridden, its limit at an infinite gamma_dot is approximated.

        The approximation is the value at a distance of 1e-12 from the end, in float64.
        """
        product = self.gamma(t) * self.gamma_dot(t)
        inward = torch.where(t > 0.5, -1e-12, 1e-12)
        inside = torch.where(product.isfinite(), t.double(), t.double() + inward)
        limit = (self.gamma(inside) * self.gamma_dot(inside)).to(t.dtype)
        return torch.where(product.isfinite(), product, limit)

    def mix(self, x: Tensor, source: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        """Return the state x_t = alpha x + beta source + gamma z, (B, *)."""
        return self._combine("state", t, (self.alpha(t), self.beta(t), self.gamma(t)), (x, source, z))

    def drift(self, x: Tensor, source: Tensor, t: Tensor, /) -> Tensor:
        """Return alpha_dot x + beta_dot source, (B, *): the drift of a sample, without its noise."""
        return self._combine("drift of a sample", t, (self.alpha_dot(t), self.beta_dot(t)), (x, source))

    def velocity_from(self, drift: Tensor, noise: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity b = drift + gamma_dot noise, (B, *).

        Raises:
            ValueError: gamma_dot is infinite.
        """
        gamma_dot = self.gamma_dot(t)
        return self._combine("velocity", t, (torch.ones_like(gamma_dot), gamma_dot), (drift, noise))

    def score_from_noise(self, noise: Tensor, t: Tensor, /) -> Tensor:
        """Return the score -noise / gamma, (B, *).

        Raises:
            ValueError: gamma = 0.
        """
        return self._combine("score", t, (-1 / self.gamma(t),), (noise,))

    def _combine(self, what: str, t: Tensor, coefficients: tuple[Tensor, ...], states: tuple[Tensor, ...]) -> Tensor:
        return linear_combination(t, coefficients, states, lambda wrong: self._not_finite(what, t, wrong))

    def _not_finite(self, what: str, t: Tensor, wrong: Tensor) -> ValueError:
        time = t.detach()[wrong][0]
        names = ("alpha", "beta", "gamma", "alpha_dot", "beta_dot", "gamma_dot")
        all_values = {name: float(getattr(self, name)(time)) for name in names}
        special = {name: value for name, value in all_values.items() if value == 0 or not math.isfinite(value)}
        values = ", ".join(f"{name} = {value:.3g}" for name, value in special.items())
        cure = f"use times inside (0, 1), {'from t = 0.001' if time < 0.5 else 'up to t = 0.999'} or the like"
        if self.gamma(torch.full_like(time, 0.5)) == 0:
            cure = "without noise there is no score and no SDE: solve the ODE of the velocity"
        return ValueError(f"{self}: the {what} is not finite at t = {float(time):.6g}, where {values}: {cure}")


def check_scale(scale: float) -> None:
    """Raise ValueError unless the scale of a gamma is finite and at least 0."""
    if not isinstance(scale, Real) or not 0 <= scale < math.inf:
        raise ValueError(f"scale must be finite and at least 0, got {scale}")
