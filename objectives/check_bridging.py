"""The numerical check of custom objectives of two-sided paths."""

import torch
from torch import Tensor

from .gauss_hermite import gauss_hermite
from .newton import minimum
from .protocols import Field, TwoSidedObjective

MEAN, STD = 0.7, 0.6  # of the one-dimensional normal data
SOURCE_MEAN, SOURCE_STD = -0.4, 0.8


def check_bridging(objective: TwoSidedObjective) -> None:
    """Check the laws of an objective of a two-sided path, for normal source and data and affine networks."""
    _check_losses(objective)
    (early, early_source, _), (late, late_source, _) = (_coefficients(objective, torch.tensor(t)) for t in (0.2, 0.8))
    if not abs(late * early_source) > abs(early * late_source):
        raise ValueError(f"{objective}: 'the states go from source to data' does not hold between t = 0.2 and 0.8")
    for time in (0.2, 0.5, 0.8):
        t = torch.tensor(time, dtype=torch.float64)
        model, x_t = _affine(_best_coefficients(objective, t)), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        times, (velocity, score) = t.expand(len(x_t)), _exact(objective, t, x_t)
        found, scores = objective.scored(model)(x_t, times)
        by_field = objective.field(model)(x_t, times)
        _compare(objective, "the field of the best network is the velocity", by_field, velocity, time)
        _compare(objective, "the first value of `scored` of the best network is the velocity", found, velocity, time)
        _compare(objective, "the second value of `scored` of the best network is the score", scores, score, time)


def _check_losses(objective: TwoSidedObjective) -> None:
    """Check that losses have shape (B,), are finite and deterministic, and each depends on its own sample only."""
    x, source, z = torch.randn(3, 3, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        return torch.cat([x_t.cos() * t.reshape(-1, 1, 1, 1), x_t.sin()], 1)

    loss = objective(model, x, source, z, t)
    if loss.shape != t.shape:
        raise ValueError(f"{objective}: the loss must have shape {tuple(t.shape)}, got {tuple(loss.shape)}")
    if not loss.isfinite().all():
        raise _violation(objective, "the loss is finite", float(t[~loss.isfinite()][0]))
    if not torch.equal(objective(model, x, source, z, t), loss):
        raise ValueError(f"{objective}: 'the loss is the same at every call' does not hold")
    rows = [slice(k, k + 1) for k in range(3)]
    alone = torch.cat([objective(model, x[k], source[k], z[k], t[k]) for k in rows])
    if not torch.allclose(alone, loss):
        time = float(t[(alone - loss).abs().argmax()])
        raise _violation(objective, "the loss of a sample does not depend on other samples", time)


def _best_coefficients(objective: TwoSidedObjective, t: Tensor) -> Tensor:
    """Return the coefficients of the affine outputs that minimise the expected loss, by Newton's method."""
    points, weights = gauss_hermite(6)
    x, source, z = (values[:, None] for values in torch.cartesian_prod(points, points, points).unbind(1))
    x, source = MEAN + STD * x, SOURCE_MEAN + SOURCE_STD * source
    weights = torch.cartesian_prod(weights, weights, weights).prod(1)

    def expected(coefficients: Tensor) -> Tensor:
        return torch.sum(weights * objective(_affine(coefficients), x, source, z, t.expand(len(x))))

    best = minimum(expected, 4)
    if best is None:
        raise _violation(objective, "the expected loss has one minimum", float(t))
    return best


def _affine(coefficients: Tensor) -> Field:
    """Return the network with the two outputs a x_t + b and c x_t + d."""
    a, b, c, d = coefficients
    return lambda x_t, t: torch.cat([a * x_t + b, c * x_t + d], 1)


def _exact(objective: TwoSidedObjective, t: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the exact velocity and score at states (N, 1), along the path of the objective."""
    h = 1e-5
    alpha, beta, gamma = _coefficients(objective, t)
    after, before = _coefficients(objective, t + h), _coefficients(objective, t - h)
    alpha_dot, beta_dot, gamma_dot = (after - before) / (2 * h)
    variance = (alpha * STD) ** 2 + (beta * SOURCE_STD) ** 2 + gamma**2
    growth = alpha_dot * alpha * STD**2 + beta_dot * beta * SOURCE_STD**2 + gamma_dot * gamma
    residual = (x_t - alpha * MEAN - beta * SOURCE_MEAN) / variance
    return alpha_dot * MEAN + beta_dot * SOURCE_MEAN + growth * residual, -residual


def _coefficients(objective: TwoSidedObjective, t: Tensor) -> Tensor:
    """Return alpha, beta and gamma at t, (3,), from the states at which the objective evaluates the model first."""
    states: list[Tensor] = []

    def model(x_t: Tensor, _: Tensor) -> Tensor:
        states.append(x_t.detach().double())
        return torch.cat([x_t, x_t], 1)

    x, source, z = torch.eye(3, dtype=torch.float64)[:, :, None]
    objective(model, x, source, z, t.double().expand(3))
    return states[0][:, 0]


def _compare(objective: TwoSidedObjective, law: str, actual: Tensor, exact: Tensor, time: float) -> None:
    if not torch.allclose(actual, exact, rtol=1e-3, atol=1e-3):
        raise _violation(objective, f"{law} (error {float((actual - exact).abs().max()):.2g})", time)


def _violation(objective: TwoSidedObjective, law: str, time: float) -> ValueError:
    return ValueError(f"{objective}: '{law}' does not hold at t = {time:.4g}")
