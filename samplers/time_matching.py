"""Times at which two paths have the same signal-to-noise ratio, and the scales that convert states between them."""

from typing import NamedTuple

import torch
from torch import Tensor

from .protocols import Path

PARTS, ROUNDS = 64, 9
"""Each of the rounds of the search divides the interval that contains the time into 64 parts: 64^9 = 2^54."""


class TimeMatch(NamedTuple):
    """The time of path `trained` that corresponds to a time of path `to`. Tensors have the shape of the times."""

    t: Tensor
    """The time of `to`, float64."""
    u: Tensor
    """The time of `trained`, rounded to the dtype in which the field is evaluated, as float64."""
    u_rounded: Tensor
    """The same time in the dtype in which the field is evaluated."""
    scale: Tensor
    """The factor of the state: x_u = scale x_t."""
    noise_scale: Tensor
    """The factor of the predicted noise that corrects for the rounding of u. It keeps the score unchanged."""
    noisy: Tensor
    """Whether sigma > alpha on `to`, bool."""


def match_times(trained: Path, to: Path, t: Tensor, u: Tensor, dtype: torch.dtype) -> TimeMatch:
    """Return the match of times t of `to` with times u of `trained`, () or (B,), where u is rounded to a dtype.

    Times below 1 are not rounded to 1. If sigma_dot(1) is infinite on `trained`, neither is 1 itself used.
    """
    u_rounded = u.to(dtype)
    one = torch.ones_like(u_rounded)
    below_one = torch.nextafter(one, one / 2)
    infinite = trained.sigma_dot(u_rounded.double()).isinf()
    u_rounded = torch.where((u_rounded == 1) & ((u < 1) | infinite), below_one, u_rounded)
    u = u_rounded.double()
    alpha_u, sigma_u, alpha_t, sigma_t = trained.alpha(u), trained.sigma(u), to.alpha(t), to.sigma(t)
    noisy = sigma_t > alpha_t
    scale = torch.where(noisy, sigma_u / sigma_t, alpha_u / alpha_t)
    noise_scale = torch.where(noisy | (sigma_u == 0), 1.0, sigma_t * alpha_u / (alpha_t * sigma_u))
    return TimeMatch(t, u, u_rounded, scale, noise_scale, noisy)


def times_of_equal_snr(trained: Path, to: Path, t: Tensor) -> Tensor:
    """Return the times of `trained` with the signal-to-noise ratio of `to` at times t, () or (B,), in float64.

    They are found by a search, because a path has no inverse of the ratio. Where alpha or sigma of `to` is 0, the time
    is 0 or 1.
    """
    alpha, sigma = to.alpha(t), to.sigma(t)
    parts = torch.arange(1, PARTS, dtype=torch.float64, device=t.device) / PARTS
    u, width = torch.zeros_like(t), 1.0
    for _ in range(ROUNDS):
        candidates = u[..., None] + width * parts
        flat = candidates.flatten()
        signal, noise = (function(flat).reshape(candidates.shape) for function in (trained.alpha, trained.sigma))
        width /= PARTS
        u = u + width * (signal * sigma[..., None] <= alpha[..., None] * noise).sum(-1)
    return torch.where(alpha == 0, 0.0, torch.where(sigma == 0, 1.0, u + width / 2))
