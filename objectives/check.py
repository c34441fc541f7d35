"""A numerical check of custom objectives."""

import torch
from torch import Tensor

from .check_bridging import check_bridging
from .gauss_hermite import gauss_hermite
from .newton import minimum
from .protocols import Field, Objective, TwoSidedObjective

MEAN, STD = 0.7, 0.6  # of the one-dimensional normal data


def check(objective: Objective | TwoSidedObjective) -> None:
    """Check that minimising `objective` trains the velocity. Call it once, in a test of a custom objective.

    An objective with a method `scored`, such as `Bridging`, is one of a two-sided path. It is checked by the same laws,
    with states alpha x + beta source + gamma z that go from source to data, and also for the score.

    The laws:

    - the loss has shape (B,), is finite and deterministic, and the loss of a sample does not depend on other samples;
    - the model is evaluated at states alpha x + sigma eps that go from noise to data;
    - `field` maps the network of least expected loss to the exact velocity.

    The last law is tested on normal data, for which every conditional expectation is affine in the state. The best
    output of the form a x_t + b is found at some times, and its field is compared with the velocity in closed form.

    The objective must accept a model whose output has the shape of the state.

    Raises:
        ValueError: a law does not hold. The message names the law and the time.
    """
    with torch.inference_mode(False), torch.enable_grad():  # the check computes derivatives
        if isinstance(objective, TwoSidedObjective):
            check_bridging(objective)
        else:
            _check(objective)


def _check(objective: Objective) -> None:
    _check_losses(objective)
    (early_data, early_noise), (late_data, late_noise) = (_coefficients(objective, torch.tensor(t)) for t in (0.2, 0.8))
    if not late_data / late_noise > early_data / early_noise:
        raise ValueError(f"{objective}: 'the states go from noise to data' does not hold between t = 0.2 and 0.8")
    for time in (0.2, 0.5, 0.8):
        t = torch.tensor(time, dtype=torch.float64)
        best = _best_coefficients(objective, t)
        x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        field = objective.field(_affine(best))
        actual, exact = field(x_t, t.expand(len(x_t))), _exact_velocity(objective, t, x_t)
        if not torch.allclose(actual, exact, rtol=1e-3, atol=1e-3):
            error = float((actual - exact).abs().max())
            raise _violation(objective, f"the field of the best network is the velocity (error {error:.2g})", time)


def _check_losses(objective: Objective) -> None:
    """Check that losses have shape (B,), are finite and deterministic, and each depends on its own sample only."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 3, 1, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    loss = objective(_wave, x, eps, t)
    if loss.shape != t.shape:
        raise ValueError(f"{objective}: the loss must have shape {tuple(t.shape)}, got {tuple(loss.shape)}")
    if not loss.isfinite().all():
        raise _violation(objective, "the loss is finite", float(t[~loss.isfinite()][0]))
    if not torch.equal(objective(_wave, x, eps, t), loss):
        raise ValueError(f"{objective}: 'the loss is the same at every call' does not hold")
    alone = torch.cat([objective(_wave, x[k : k + 1], eps[k : k + 1], t[k : k + 1]) for k in range(3)])
    if not torch.allclose(alone, loss):
        raise _violation(
            objective, "the loss of a sample does not depend on other samples", float(t[(alone - loss).abs().argmax()])
        )


def _wave(x_t: Tensor, t: Tensor) -> Tensor:
    """Return the output of a toy network."""
    return torch.cos(x_t) * t.reshape(-1, *[1] * (x_t.ndim - 1))


def _best_coefficients(objective: Objective, t: Tensor) -> Tensor:
    """Return the a and b for which the output a x_t + b minimises the expected loss, by Newton's method."""
    x, eps, weights = _quadrature()

    def expected(ab: Tensor) -> Tensor:
        return torch.sum(weights * objective(_affine(ab), x, eps, t.expand(len(x))))

    best = minimum(expected, 2)
    if best is None:
        raise _violation(objective, "the expected loss has one minimum", float(t))
    return best


def _affine(ab: Tensor) -> Field:
    """Return the network that outputs a x_t + b."""
    return lambda x_t, t: ab[0] * x_t + ab[1]


def _quadrature() -> tuple[Tensor, Tensor, Tensor]:
    """Return the data (N, 1), noise (N, 1) and weights (N,) of a Gauss-Hermite rule for expectations."""
    points, weights = gauss_hermite(12)
    z, eps = torch.cartesian_prod(points, points).unbind(1)
    return MEAN + STD * z[:, None], eps[:, None], torch.outer(weights, weights).flatten()


def _exact_velocity(objective: Objective, t: Tensor, x_t: Tensor) -> Tensor:
    """Return the exact velocity of the normal data at states (N, 1), along the path of the objective."""
    alpha, sigma = _coefficients(objective, t)
    h = 1e-5
    after, before = _coefficients(objective, t + h), _coefficients(objective, t - h)
    alpha_dot, sigma_dot = ((a - b) / (2 * h) for a, b in zip(after, before, strict=True))
    residual = (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    return alpha_dot * (MEAN + alpha * STD**2 * residual) + sigma_dot * sigma * residual


def _coefficients(objective: Objective, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma at t, from the states at which the objective evaluates the model."""
    states: list[Tensor] = []

    def model(x_t: Tensor, _: Tensor) -> Tensor:
        states.append(x_t.detach().double())
        return x_t

    unit = torch.eye(2, dtype=torch.float64)
    objective(model, unit[:, :1], unit[:, 1:], t.double().expand(2))
    return states[0][0, 0], states[0][1, 0]


def _violation(objective: Objective, law: str, time: float) -> ValueError:
    return ValueError(f"{objective}: '{law}' does not hold at t = {time:.4g}")
