r"""The four quantities that a network may predict and in which an error may be measured: velocity, noise, score, data.

Given the state x_t, an error in one quantity is proportional to the error in any other, with a factor that depends on
time only. With $\Delta = \dot\alpha\sigma - \alpha\dot\sigma$, and up to sign,

$$e_v : e_\epsilon : e_s : e_x = \Delta : \alpha : \alpha/\sigma : \sigma$$

(from SiT, arXiv 2401.08740, eq. 9 and 44). `error_rate` returns these terms. The ratio of two rates is finite wherever
the conversion between the two quantities is.
"""

from typing import Protocol

from torch import Tensor

from .protocols import Path


class Quantity(Protocol):
    """One of `Velocity`, `Noise`, `Score`, `Data`."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the error of the output, (B, *), measured in the quantity that `unit` returns."""
        ...

    @staticmethod
    def unit() -> "type[Quantity]":
        """Return the quantity in which the residual is measured: this one, or `Noise` for `Score`."""
        ...

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return this quantity's term in the proportion above, (B,)."""
        ...

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, (B, *), of a prediction of this quantity."""
        ...


class Velocity:
    r"""The velocity $v = \dot\alpha x + \dot\sigma\epsilon$. Its error is that of SiT's L_v (eq. 6)."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return output - v."""
        return output - path.velocity(x, eps, t)

    @staticmethod
    def unit() -> type[Quantity]:
        """Return `Velocity`."""
        return Velocity

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return Delta."""
        return path.alpha_dot(t) * path.sigma(t) - path.alpha(t) * path.sigma_dot(t)

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the output."""
        return output


class Noise:
    r"""The noise $\epsilon$, as DDPM predicts it."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return output - eps."""
        return output - eps

    @staticmethod
    def unit() -> type[Quantity]:
        """Return `Noise`."""
        return Noise

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return alpha."""
        return path.alpha(t)

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity. It is infinite where alpha = 0."""
        return path.velocity_from_noise(output, x_t, t)


class Score:
    r"""The score $s = -\epsilon/\sigma$. Its error is $\sigma s + \epsilon$, as in SiT's L_s (eq. 7)."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return sigma output + eps. It is finite where sigma = 0."""
        sigma = path.sigma(t).reshape(-1, *[1] * (x.ndim - 1))
        return sigma.to(eps.dtype) * output + eps

    @staticmethod
    def unit() -> type[Quantity]:
        """Return `Noise`."""
        return Noise

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return alpha / sigma."""
        return path.alpha(t) / path.sigma(t)

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity. It is infinite where alpha = 0."""
        return path.velocity_from_score(output, x_t, t)


class Data:
    """The data x, as JiT predicts them (arXiv 2511.13720)."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return output - x."""
        return output - x

    @staticmethod
    def unit() -> type[Quantity]:
        """Return `Data`."""
        return Data

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return sigma."""
        return path.sigma(t)

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity. It is infinite where sigma = 0."""
        return path.velocity_from_data(output, x_t, t)
