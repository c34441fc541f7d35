"""What every objective must satisfy, checked by numbers."""

import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from .protocols import Field, Objective

MEAN, STD = 0.7, 0.6  # of the data, one number each


def check(objective: Objective) -> None:
    """Check that `objective` teaches the velocity; its author calls this once, in a test.

    The laws: a loss is one finite number for each sample, the same at every call, and that sample's own; the
    model is asked at states alpha x + sigma eps that go from noise to data; and a network of least expected loss
    stands, by `field`, for the exact velocity. The last is shown on normal data, for which every expectation is affine
    in the state: among outputs a x_t + b the best is found for given times, and its field compared with the velocity
    known in closed form.

    The model must return the shape of the state.

    Raises:
        ValueError: a law does not hold; the message says which, and where.
    """
    with torch.inference_mode(False), torch.enable_grad():  # it differentiates for itself
        _check(objective)


def _check(objective: Objective) -> None:
    _check_rows(objective)
    (early_data, early_noise), (late_data, late_noise) = (_coefficients(objective, torch.tensor(t)) for t in (0.2, 0.8))
    if not late_data / late_noise > early_data / early_noise:
        raise ValueError(f"{objective}: 'the states go from noise to data' does not hold between t = 0.2 and 0.8")
    for time in (0.2, 0.5, 0.8):
        t = torch.tensor(time, dtype=torch.float64)
        best = _best(objective, t)
        x_t = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        field = objective.field(_affine(best))
        read, exact = field(x_t, t.expand(len(x_t))), _velocity(objective, t, x_t)
        if not torch.allclose(read, exact, rtol=1e-3, atol=1e-3):
            gap = float((read - exact).abs().max())
            raise _broken(objective, f"the field of the best network is the velocity (off by {gap:.2g})", time)


def _check_rows(objective: Objective) -> None:
    """Check that losses are of the right shape, finite, reproducible, and each of its own sample."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 3, 1, 3, 3, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    loss = objective(_wave, x, eps, t)
    if loss.shape != t.shape:
        raise ValueError(f"{objective}: the loss must have shape {tuple(t.shape)}, got {tuple(loss.shape)}")
    if not loss.isfinite().all():
        raise _broken(objective, "the loss is finite", float(t[~loss.isfinite()][0]))
    if not torch.equal(objective(_wave, x, eps, t), loss):
        raise ValueError(f"{objective}: 'the loss is the same at every call' does not hold")
    alone = torch.cat([objective(_wave, x[k : k + 1], eps[k : k + 1], t[k : k + 1]) for k in range(3)])
    if not torch.allclose(alone, loss):
        raise _broken(objective, "a loss is its sample's own", float(t[(alone - loss).abs().argmax()]))


def _wave(x_t: Tensor, t: Tensor) -> Tensor:
    """Stand in for a network."""
    return torch.cos(x_t) * t.reshape(-1, *[1] * (x_t.ndim - 1))


def _best(objective: Objective, t: Tensor) -> Tensor:
    """Return the a and b of the output a x_t + b whose expected loss on normal data is least, by Newton's method."""
    x, eps, weights = _nodes()

    def expected(ab: Tensor) -> Tensor:
        return torch.sum(weights * objective(_affine(ab), x, eps, t.expand(len(x))))

    best = torch.zeros(2, dtype=torch.float64)
    for _ in range(20):
        slope: Tensor = jacobian(expected, best)  # type: ignore[no-untyped-call]
        curvature: Tensor = hessian(expected, best)  # type: ignore[no-untyped-call]
        if not (torch.linalg.eigvalsh(curvature) > 0).all():
            raise _broken(objective, "the expected loss has one minimum", float(t))
        best = best - torch.linalg.solve(curvature, slope)
    return best


def _affine(ab: Tensor) -> Field:
    """Return the network that outputs a x_t + b."""
    return lambda x_t, t: ab[0] * x_t + ab[1]


def _nodes() -> tuple[Tensor, Tensor, Tensor]:
    """Return data (N, 1), noise (N, 1) and weights (N,) by which sums are expectations (Gauss and Hermite's rule)."""
    size = 12
    off_diagonal = torch.arange(1, size, dtype=torch.float64).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    shares = vectors[0] ** 2
    z, eps = torch.cartesian_prod(points, points).unbind(1)
    return MEAN + STD * z[:, None], eps[:, None], torch.outer(shares, shares).flatten()


def _velocity(objective: Objective, t: Tensor, x_t: Tensor) -> Tensor:
    """Return the exact velocity of normal data at states (N, 1), along the path that the objective is seen to take."""
    alpha, sigma = _coefficients(objective, t)
    h = 1e-5
    after, before = _coefficients(objective, t + h), _coefficients(objective, t - h)
    alpha_dot, sigma_dot = ((a - b) / (2 * h) for a, b in zip(after, before, strict=True))
    gap = (x_t - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)
    return alpha_dot * (MEAN + alpha * STD**2 * gap) + sigma_dot * sigma * gap


def _coefficients(objective: Objective, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma at t, from the states at which the objective asks the model."""
    seen: list[Tensor] = []

    def model(x_t: Tensor, _: Tensor) -> Tensor:
        seen.append(x_t.detach().double())
        return x_t

    unit = torch.eye(2, dtype=torch.float64)
    objective(model, unit[:, :1], unit[:, 1:], t.double().expand(2))
    return seen[0][0, 0], seen[0][1, 0]


def _broken(objective: Objective, law: str, time: float) -> ValueError:
    return ValueError(f"{objective}: '{law}' does not hold at t = {time:.4g}")
