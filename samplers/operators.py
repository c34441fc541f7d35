"""Linear operators from data to observations, for `MomentMatching`, and the test of custom ones."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from numbers import Integral

import torch
from einops import reduce
from torch import Tensor

from . import philox
from .philox import Domain
from .vjp import value_and_vjp


@dataclass(frozen=True, eq=False)
class Inpainting:
    """The operator mask * x of in-painting: values where the mask is 1 are observed. Observations are 0 elsewhere.

    Args:
        mask: 1 or True where a value is observed, 0 elsewhere. Its shape is that of one row of the states, or
            broadcasts to it. A mask with as many dimensions as the states is one for each row.
    """

    mask: Tensor
    _index: Tensor | None = field(default=None, repr=False)
    """The rows of the mask that are used. Default: all."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return the observations of x (B, *), of the same shape.

        Raises:
            ValueError: the mask does not broadcast to x.
        """
        mask = self.mask.to(x.device)
        mask = mask.clone() if mask.is_inference() else mask  # which autograd cannot save
        if self._index is not None and mask.ndim == x.ndim and len(mask) > 1:
            mask = mask[self._index]
        given, needed = tuple(mask.shape), tuple(x.shape)
        if len(given) > len(needed) or any(m not in (1, n) for m, n in zip(given[::-1], needed[::-1], strict=False)):
            raise ValueError(
                f"a mask of shape {given} does not broadcast to states {needed}: "
                f"give the shape of one row, {needed[1:]}"
            )
        return mask * x

    def rows(self, index: Tensor, /) -> "Inpainting":
        """Return the operator restricted to the rows `index`, (N,)."""
        return replace(self, _index=index if self._index is None else self._index[index])


@dataclass(frozen=True)
class Coarsening:
    """The mean over blocks of factor x factor pixels: the operator of super-resolution.

    Args:
        factor: the length of a block in each of the dimensions of states (B, C, *) after the channels.

    Raises:
        ValueError: `factor` is not a whole number, at least 1.
    """

    factor: int

    def __post_init__(self) -> None:
        if not isinstance(self.factor, Integral) or self.factor < 1:
            raise ValueError(f"factor must be a whole number, at least 1, got {self.factor}")

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return the means of states x (B, C, *), for images (B, C, H / factor, W / factor).

        Raises:
            ValueError: x has no dimensions after the channels, or the factor does not divide them.
        """
        size = tuple(x.shape[2:])
        if not size or any(n % self.factor for n in size):
            raise ValueError(
                f"Coarsening by {self.factor} needs states (B, C, *) whose dimensions after the channels are multiples "
                f"of {self.factor}, got {tuple(x.shape)}"
            )
        blocks = " ".join(f"(n{k} f{k})" for k in range(len(size)))
        left = " ".join(f"n{k}" for k in range(len(size)))
        return reduce(x, f"b c {blocks} -> b c {left}", "mean", **{f"f{k}": self.factor for k in range(len(size))})

    def rows(self, index: Tensor, /) -> "Coarsening":
        """Return the operator for the rows `index`, (N,): itself, because it treats all rows alike."""
        return self


def check_operator(operator: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """Test an operator on two random states of the shape of x (B, *).

    It should be linear, A(a x_1 + b x_2) = a A x_1 + b A x_2; its transpose by automatic differentiation should be that
    of A, <A x_1, A x_2> = <x_1, A^T A x_2>; and a row of its result should depend on that row of the state only.

    Raises:
        ValueError: a test fails.
    """
    key = philox.key(0, 0, domain=Domain.OPERATORS)
    states = philox.normal(key, torch.arange(2 * len(x), device=x.device), tuple(x.shape[1:])).to(x.dtype)
    first, second = states[: len(x)], states[len(x) :]
    a, b = 0.7, -1.6
    mixed, one, other = (operator(state).detach() for state in (a * first + b * second, first, second))
    tolerance = 10 * torch.finfo(one.dtype).eps ** 0.5
    scale = torch.maximum(one.abs().amax(), other.abs().amax())
    error = (mixed - (a * one + b * other)).abs().amax()
    if not error <= tolerance * scale:
        raise ValueError(
            f"the operator must be linear: A(a x + b z) and a A x + b A z differ by {float(error):.3g} for random x "
            f"and z, where A x is at most {float(scale):.3g}: subtract the constant of an affine operator from y, fix "
            "the random numbers of a random one, and use Rewarded for one that is not linear"
        )
    value, transpose = value_and_vjp(operator, first, "the operator")
    product, transposed = (value * other).sum(), (first * transpose(other)).sum()
    if not (product - transposed).abs() <= tolerance * value.norm() * other.norm():
        raise ValueError(
            f"the derivative of the operator is not its transpose: <A x, A z> = {float(product):.3g} and "
            f"<x, A^T A z> = {float(transposed):.3g} for random x and z: remove detach and rounding from it"
        )
    second = torch.cat([first[:1], second[1:]])
    error = (operator(second)[:1].detach() - one[:1]).abs().amax()
    if not error <= tolerance * scale:
        raise ValueError(
            f"the operator must treat rows separately: the first row of A x changes by {float(error):.3g} with the "
            "other rows of x"
        )
