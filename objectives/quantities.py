r"""The four quantities that a network may predict, and that an error may be measured in.

Given the state x_t, an error e in one of them is an error in the others, and only the factor between them depends on
time. With $\Delta = \dot\alpha\sigma - \alpha\dot\sigma$, and up to sign,

$$e_v : e_\epsilon : e_s : e_x = \Delta : \alpha : \alpha/\sigma : \sigma$$

(from SiT, arXiv 2401.08740, eq. 9 and 44). `error_rate` is that proportion. Ratios of two rates are finite wherever the
conversion itself is, which conversions made one after the other would not be.
"""

from typing import Protocol

from torch import Tensor

from .protocols import Path


class Quantity(Protocol):
    """One of `Velocity`, `Noise`, `Score`, `Data`."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return the error of the output (B, *), in the unit that `unit` names."""
        ...

    @staticmethod
    def unit() -> "type[Quantity]":
        """Return the quantity that the residual is an error in: itself, but for `Score`."""
        ...

    @staticmethod
    def error_rate(path: Path, t: Tensor) -> Tensor:
        """Return how large an error in this quantity is, in the proportion above, (B,)."""
        ...

    @staticmethod
    def to_velocity(path: Path, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """Return the velocity, (B, *), of an output that stands for this quantity."""
        ...


class Velocity:
    r"""$v = \dot\alpha x + \dot\sigma\epsilon$, whose error is that of SiT's L_v (eq. 6)."""

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
    r"""$\epsilon$, as DDPM predicts it."""

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
        """Return the velocity: infinite where alpha = 0."""
        return path.velocity_from_noise(output, x_t, t)


class Score:
    r"""$s = -\epsilon/\sigma$, whose error is taken as $\sigma s + \epsilon$, that of SiT's L_s (eq. 7)."""

    @staticmethod
    def residual(path: Path, output: Tensor, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return sigma output + eps, which stays finite where sigma = 0."""
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
        """Return the velocity: infinite where alpha = 0."""
        return path.velocity_from_score(output, x_t, t)


class Data:
    """x, as JiT predicts it (arXiv 2511.13720)."""

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
        """Return the velocity: infinite where sigma = 0."""
        return path.velocity_from_data(output, x_t, t)
