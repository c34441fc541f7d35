"""The coefficients of exponential multistep methods, for a whole grid at once; `exponential.py` derives them."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from .log_snr import log_snr, time_at
from .protocols import Diffusion, Path
from .sde import check_coefficient
from .times import has_derivative, is_batched

PANELS, NODES = 10, 20
REACH = 40.0
"""What stands for an infinite length in log(alpha / sigma): exp(-40) is less than a rounding error."""


class ExponentialSteps:
    """The steps of a grid of times (N + 1,): x_s = state x_t + sum of weights times data + noise times z.

    All is computed on the CPU in float64, in whatever grad mode and on whatever default device. `state` and `noise`
    have N entries, one a step.

    Raises:
        ValueError: no noise at the first time, w is negative or not finite, alpha_dot = alpha = 0 at the first time, or
            times, path or w ask for a gradient, in either mode, or are of a vmap: coefficients are plain numbers.
    """

    def __init__(self, path: Path, w: Diffusion | None, times: Tensor, variable: Callable[[Tensor], Tensor]):
        with torch.device("cpu"):
            _check_gradients(path, w, times)
            with torch.inference_mode(False):  # where torch 2.9 takes every derivative for 0
                self._derive(path, w, times.detach().cpu().double().clone(), variable)

    @torch.no_grad()
    def _derive(self, path: Path, w: Diffusion | None, times: Tensor, variable: Callable[[Tensor], Tensor]) -> None:
        t, s = times[:-1], times[1:]
        alpha_t, sigma_t, sigma_s = path.alpha(t), path.sigma(t), path.sigma(s)
        _check_start(path, t[0])
        places = log_snr(path, times)
        self._lands = sigma_s == 0
        ahead = torch.where(self._lands, places[:-1].clamp(min=-REACH) + 1, places[1:])  # any will do where it lands
        start = torch.where(places[:-1] == -torch.inf, ahead - REACH, places[:-1])
        end = torch.where(ahead == -torch.inf, start - REACH, ahead)
        nodes, slopes = _nodes(start, end)
        ratios = torch.zeros_like(nodes) if w is None else _share_of_kl(path, w, nodes)
        before, whole = _integrals(ratios, slopes)  # of w / w_KL, up to each node and over the step
        keeps = torch.where(self._lands, 0.0, torch.exp(-whole))
        self.state = _numbers(sigma_s / sigma_t * keeps)
        self.noise = _numbers(sigma_s * torch.sqrt(-torch.expm1(-2 * whole)))
        self._mass = (path.alpha(s) - alpha_t * sigma_s / sigma_t * keeps, alpha_t * sigma_s / sigma_t * keeps)
        self._values = variable(places)
        measure = sigma_s[:, None] * torch.exp(nodes - (whole[:, None] - before))
        inner, rate = _derivative(variable, nodes)
        self._inner, self._density = inner, measure * rate * slopes

    def weights(self, step: int, nodes: Sequence[int]) -> list[float]:
        """Return the weight that a step gives to the data known at each of some times, by their places in the grid.

        The polynomial through them is integrated exactly. Times where the variable is infinite have weight 0, unless
        the step ends at one: then all have but the first.
        """
        goal = self._values[step + 1]
        usable = [n for n in nodes if self._values[n].isfinite()] if goal.isfinite() else []
        usable = usable or [nodes[0]]
        solution = [float(self._mass[0][step])]
        if len(usable) > 1:
            gaps = self._values[usable] - goal
            unit = gaps.abs().max()
            powers = torch.arange(len(usable), dtype=torch.float64, device="cpu")
            matrix = (gaps / unit)[None, :] ** powers[:, None]
            solution = _numbers(torch.linalg.solve(matrix, self._moments(step, unit, len(usable))))
        by_node = dict(zip(usable, solution, strict=True))
        return [by_node.get(n, 0.0) for n in nodes]

    def _moments(self, step: int, unit: Tensor, count: int) -> Tensor:
        """Return the integrals of ((u - u_s) / unit)^k dm for k < count, by parts: m is known, dm may be steep."""
        whole, at_start = (mass[step] for mass in self._mass)
        moments = [whole]
        goal = self._values[step + 1]
        for k in range(1, count):
            if self._lands[step]:
                moments.append(torch.zeros_like(whole))  # all of the mass lies at the end
                continue
            begin = self._values[step]
            boundary = torch.where(at_start == 0, 0.0, ((begin - goal) / unit) ** k * at_start)
            inner = k * ((self._inner[step] - goal) / unit) ** (k - 1) / unit
            moments.append(-boundary - torch.sum(inner * self._density[step]))
        return torch.stack(moments)


def _numbers(values: Tensor) -> list[float]:
    """Return values (N,) as numbers: one by one, since torch 2.9 has no `tolist` inside of torch.func's transforms."""
    return [float(value) for value in values]


def _check_gradients(path: Path, w: Diffusion | None, times: Tensor) -> None:
    """Raise ValueError if a derivative by what the coefficients depend on is asked for, or a vmap: they have none."""
    inside = times.detach().cpu().double().mean()
    values = {"the times": times, "the path": path.alpha(inside) + path.sigma(inside)}
    if w is not None:
        values["w"] = torch.as_tensor(w(inside))
    for name, value in values.items():
        if is_batched(value):
            raise ValueError(
                f"Exponential cannot be vmapped over {name}: call it for each, or take a solver that can, as Heun or "
                "EulerMaruyama"
            )
        if has_derivative(value):
            raise ValueError(
                f"Exponential has no gradient by {name}: ask for none (torch.no_grad, detach), or take a solver that "
                "has one, as Heun or EulerMaruyama"
            )


def _check_start(path: Path, t: Tensor) -> None:
    delta = path.alpha_dot(t) * path.sigma(t) - path.alpha(t) * path.sigma_dot(t)
    if not path.sigma(t) > 0 or not delta > 0:
        raise ValueError(
            f"at t = {t:.6g} the velocity does not tell data from noise (sigma = {path.sigma(t):.3g}): "
            f"begin between the ends, at t = {0.001 if t < 0.5 else 0.999} or the like"
        )


def _share_of_kl(path: Path, w: Diffusion, nodes: Tensor) -> Tensor:
    """Return w / w_KL at the times of the nodes: w / sigma^2 dt is twice this times d log(alpha / sigma)."""
    t = time_at(path, nodes.flatten())
    alpha, sigma = path.alpha(t), path.sigma(t)
    delta = path.alpha_dot(t) * sigma - alpha * path.sigma_dot(t)
    return (check_coefficient(w, t) * alpha / (2 * sigma * delta)).reshape(nodes.shape)


@cache
def _gauss() -> tuple[Tensor, Tensor, Tensor]:
    """Return Gauss and Legendre's nodes and weights on [-1, 1], and the integrals up to the nodes, as a matrix."""
    legendre = np.polynomial.legendre
    nodes, weights = legendre.leggauss(NODES)
    integrals = [legendre.legval(nodes, legendre.legint(row, lbnd=-1)) for row in np.eye(NODES)]
    matrix = np.stack(integrals, 1) @ np.linalg.inv(legendre.legvander(nodes, NODES - 1))
    return torch.tensor(nodes), torch.tensor(weights), torch.tensor(matrix)


def _nodes(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes (N, PANELS * NODES) between start and end (N,), and their weights: the integral is a sum."""
    nodes, weights, _ = _gauss()
    width = ((end - start) / PANELS)[:, None, None]
    panels = torch.arange(PANELS, dtype=torch.float64)[:, None]
    places = start[:, None, None] + width * (panels + (1 + nodes) / 2)
    return places.flatten(1), (width / 2 * weights).expand(-1, PANELS, -1).flatten(1)


def _integrals(values: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integral of values at `_nodes` up to each of them, of their shape, and over all, (N,)."""
    _, weights, matrix = _gauss()
    values, half = values.reshape(-1, PANELS, NODES), slopes.reshape(-1, PANELS, NODES) / weights
    panels = torch.sum(values * half * weights, 2)
    before = panels.cumsum(1) - panels
    return (before[:, :, None] + half * (values @ matrix.T)).flatten(1), torch.sum(panels, 1)


def _derivative(variable: Callable[[Tensor], Tensor], places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variable and its derivative, of places' shape."""
    rate = torch.func.grad(lambda place: variable(place).sum())(places)
    return variable(places), rate
