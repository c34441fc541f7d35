"""The coefficients of exponential multistep methods for all steps of a grid. `exponential.py` derives the formulas."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .jumps import jumps_inside
from .log_snr import log_snr, time_from_log_snr
from .protocols import Diffusion, Path
from .quadrature import cumulative_integral, diverges, quadrature_nodes
from .sde import check_coefficient
from .transforms import has_derivative, is_batched

INFINITE_LENGTH = 40.0
"""The finite length in log(alpha / sigma) that replaces an infinite one. exp(-40) is below the rounding error."""


class ExponentialCoefficients:
    """The coefficients of the steps of a grid of times, (N + 1,).

    Step n is x_s = state[n] x_t + integral(n, ...) + noise[n] z with standard normal z, where the integral is a
    weighted sum of data predictions. `state` and `noise` are lists of N numbers. Everything is computed on the CPU in
    float64, in any grad mode and for any default device.

    Raises:
        ValueError: sigma = 0 or alpha_dot = alpha = 0 at the first time; w is negative or not finite; or times, path or
            w require a gradient, in either mode, or are vmapped, which is not supported because coefficients are plain
            numbers.
    """

    def __init__(self, path: Path, w: Diffusion | None, times: Tensor, variable: Callable[[Tensor], Tensor]):
        with torch.device("cpu"):
            _check_no_gradients(path, w, times)
            with torch.inference_mode(False):  # in inference mode, derivatives of torch 2.9 are 0
                self._compute(path, w, times.detach().cpu().double().clone(), variable)

    @torch.no_grad()
    def _compute(self, path: Path, w: Diffusion | None, times: Tensor, variable: Callable[[Tensor], Tensor]) -> None:
        t, s = times[:-1], times[1:]
        alpha_t, sigma_t, sigma_s = path.alpha(t), path.sigma(t), path.sigma(s)
        check_first_time(path, t[0])
        grid = log_snr(path, times)
        self._ends_on_data = sigma_s == 0
        steps = finite_steps(grid[:-1], grid[1:], self._ends_on_data)
        breaks = log_snr(path, torch.tensor(jumps_inside(w, times), dtype=torch.float64))
        nodes, quadrature_weights = quadrature_nodes(*steps, breaks)
        ratios = torch.zeros_like(nodes) if w is None else _ratio_to_kl(path, w, nodes)
        partial, total = cumulative_integral(ratios, quadrature_weights)  # of w / w_KL: up to each node, over the step
        forgets = self._ends_on_data | ((grid[:-1] == -torch.inf) & diverges(ratios))
        decay = torch.where(forgets, 0.0, torch.exp(-total))
        self.state = _floats(sigma_s / sigma_t * decay)
        self.noise = _floats(sigma_s * torch.where(forgets, 1.0, torch.sqrt(-torch.expm1(-2 * total))))
        m_start = alpha_t * sigma_s / sigma_t * decay
        self._m_increment, self._m_start = path.alpha(s) - m_start, m_start
        self._u_grid = variable(grid)
        m_nodes = sigma_s[:, None] * torch.exp(nodes - (total[:, None] - partial))
        self._u_nodes, u_rates = _value_and_derivative(variable, nodes)
        self._m_du = m_nodes * u_rates * quadrature_weights  # m(u) du at the nodes

    def weights(self, step: int, nodes: Sequence[int]) -> list[float]:
        """Return the weights in a step of the data predicted at some times, which are given by their indices.

        They integrate the interpolation polynomial exactly. Times at which the variable is infinite have weight 0. If
        the variable is infinite at the end of the step, only the first time has a weight.
        """
        u_end = self._u_grid[step + 1]
        usable = [n for n in nodes if self._u_grid[n].isfinite()] if u_end.isfinite() else []
        usable = usable or [nodes[0]]
        solution = [float(self._m_increment[step])]
        if len(usable) > 1:
            distances = self._u_grid[usable] - u_end
            unit = distances.abs().max()
            powers = torch.arange(len(usable), dtype=torch.float64, device="cpu")
            matrix = (distances / unit)[None, :] ** powers[:, None]
            solution = _floats(torch.linalg.solve(matrix, self._moments(step, unit, len(usable))))
        by_node = dict(zip(usable, solution, strict=True))
        return [by_node.get(n, 0.0) for n in nodes]

    def integral(self, step: int, newest: int, data: Sequence[Tensor]) -> Tensor:
        """Return the integral of predicted data over a step: the sum of weights times data, (B, *).

        `data` are the predictions at the times with indices newest, newest - 1, newest - 2, ...
        """
        weights = self.weights(step, range(newest, newest - len(data), -1))
        total = weights[0] * data[0]
        for weight, value in zip(weights[1:], data[1:], strict=True):
            total = total + weight * value
        return total

    def _moments(self, step: int, unit: Tensor, count: int) -> Tensor:
        """Return the integrals of ((u - u_s) / unit)^k dm for k < count.

        They are computed by partial integration, since m is known and dm may be steep.
        """
        moments = [self._m_increment[step]]
        m_start, u_end = self._m_start[step], self._u_grid[step + 1]
        for k in range(1, count):
            if self._ends_on_data[step]:
                moments.append(torch.zeros_like(moments[0]))  # dm is concentrated at the end of the step
                continue
            boundary = torch.where(m_start == 0, 0.0, ((self._u_grid[step] - u_end) / unit) ** k * m_start)
            derivative = k * ((self._u_nodes[step] - u_end) / unit) ** (k - 1) / unit
            moments.append(-boundary - torch.sum(derivative * self._m_du[step]))
        return torch.stack(moments)


def _floats(values: Tensor) -> list[float]:
    """Return values (N,) as floats. `tolist` of torch 2.9 does not work inside torch.func transforms."""
    return [float(value) for value in values]


def _check_no_gradients(path: Path, w: Diffusion | None, times: Tensor) -> None:
    """Raise ValueError if times, path or w require a gradient or are vmapped."""
    middle = times.detach().cpu().double().mean()
    values = {"the times": times, "the path": path.alpha(middle) + path.sigma(middle)}
    if w is not None:
        values["w"] = torch.as_tensor(w(middle))
    for name, value in values.items():
        if is_batched(value):
            raise ValueError(
                f"Exponential cannot be vmapped over {name}: call it in a loop, or use a solver that supports vmap, "
                "such as Heun or EulerMaruyama"
            )
        if has_derivative(value):
            raise ValueError(
                f"Exponential has no gradient by {name}: detach it or use torch.no_grad, or use a solver that has the "
                "gradient, such as ExponentialEuler"
            )


def check_first_time(path: Path, t: Tensor) -> None:
    """Raise ValueError if the velocity at a first time, () or (B,), does not determine the data."""
    sigma = path.sigma(t)
    wrong = ~((sigma > 0) & (path.alpha_dot(t) * sigma - path.alpha(t) * path.sigma_dot(t) > 0))
    if wrong.any():
        raise ValueError(
            f"at t = {t[wrong][0]:.6g} the velocity does not determine data and noise (sigma = {sigma[wrong][0]:.3g}): "
            f"start inside (0, 1), at t = {0.001 if t[wrong][0] < 0.5 else 0.999} or the like"
        )


def finite_steps(start: Tensor, end: Tensor, ends_on_data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of steps in log(alpha / sigma), (N,) each, with finite values in place of infinite ones."""
    # the end of a step with sigma_s = 0 is arbitrary, because the state decays to 0 there
    end = torch.where(ends_on_data, start.clamp(min=-INFINITE_LENGTH) + 1, end)
    start = torch.where(start == -torch.inf, end - INFINITE_LENGTH, start)
    return start, torch.where(end == -torch.inf, start - INFINITE_LENGTH, end)


def _ratio_to_kl(path: Path, w: Diffusion, nodes: Tensor) -> Tensor:
    """Return w / w_KL at values of log(alpha / sigma). w / sigma^2 dt equals 2 w / w_KL d log(alpha / sigma)."""
    t = time_from_log_snr(path, nodes.flatten())
    alpha, sigma = path.alpha(t), path.sigma(t)
    delta = path.alpha_dot(t) * sigma - alpha * path.sigma_dot(t)
    return (check_coefficient(w, t) * alpha / (2 * sigma * delta)).reshape(nodes.shape)


def _value_and_derivative(variable: Callable[[Tensor], Tensor], places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variable and its derivative, of the shape of places."""
    derivative = torch.func.grad(lambda place: variable(place).sum())(places)
    return variable(places), derivative
