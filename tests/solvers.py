"""All solvers, with a network and states, for laws that hold for each of them.

Add every new solver to this list.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sitkit.backbones import MLP, Mixture
from sitkit.interpolants import Linear
from sitkit.samplers import (
    DDIM,
    KL,
    RK4,
    SDE,
    Ancestral,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Field,
    Heun,
    Keyed,
    LearnedAncestral,
    Mean,
    Midpoint,
    NoiseSource,
    OneStep,
    ScoredField,
    Sigma,
    Solver,
    StochasticHeun,
    Tweedie,
    Window,
    white,
)

PATH = Linear()
WORLD = Mixture.isotropic(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.3)
TIMES = torch.linspace(0.05, 0.95, 7)
NOISE = Keyed(0, torch.arange(6))


def network(seed: int = 0) -> MLP:
    """Return a small network on 2D states whose output is not 0."""
    torch.manual_seed(seed)
    model = MLP(2, hidden_size=16, depth=1)
    nn.init.normal_(model.out.weight, std=0.3)
    return model


def start(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return six 2D states."""
    return torch.randn(6, 2, generator=torch.Generator().manual_seed(1)).to(dtype)


Maker = Callable[[Field, NoiseSource], Solver]

ODE: dict[str, Maker] = {
    "Euler": lambda v, noise: Euler(v),
    "Midpoint": lambda v, noise: Midpoint(v),
    "Heun": lambda v, noise: Heun(v),
    "RK4": lambda v, noise: RK4(v),
    "DDIM": lambda v, noise: DDIM(v, PATH),
    "Exponential": lambda v, noise: Exponential(v, PATH),
    "Exponential, order 1": lambda v, noise: Exponential(v, PATH, order=1, corrector=False),
    "ExponentialEuler": lambda v, noise: ExponentialEuler(v, PATH),
    "Mean": lambda v, noise: Mean(SDE(v, PATH, Sigma(PATH))),
    "Tweedie": lambda v, noise: Tweedie(v, PATH),
}
STOCHASTIC: dict[str, Maker] = {
    "EulerMaruyama, scored": lambda v, noise: EulerMaruyama(SDE.of(_scored(v), Sigma(PATH)), noise),
    "StochasticHeun, scored": lambda v, noise: StochasticHeun(SDE.of(_scored(v), Sigma(PATH)), noise),
    "Ancestral": lambda v, noise: Ancestral(v, PATH, noise),
    "EulerMaruyama": lambda v, noise: EulerMaruyama(SDE(v, PATH, Sigma(PATH)), noise),
    "EulerMaruyama, window": lambda v, noise: EulerMaruyama(SDE(v, PATH, Window(Sigma(PATH), (0.3, 0.7))), noise),
    "ExponentialEuler, KL": lambda v, noise: ExponentialEuler(v, PATH, KL(PATH), noise=noise),
    "ExponentialEuler, sigma": lambda v, noise: ExponentialEuler(v, PATH, Sigma(PATH), noise=noise),
    "StochasticHeun": lambda v, noise: StochasticHeun(SDE(v, PATH, Sigma(PATH)), noise),
    "Exponential, KL": lambda v, noise: Exponential(v, PATH, KL(PATH), noise=noise),
    "LearnedAncestral": lambda v, noise: LearnedAncestral(_with_range(v), PATH, noise),
}
SOLVERS = ODE | STOCHASTIC


def one_step(name: str, velocity: Field, noise: NoiseSource = white) -> OneStep | None:
    """Return the solver of that name, or None for a multistep solver."""
    solver = SOLVERS[name](velocity, noise)
    return solver if isinstance(solver, OneStep) else None


def _scored(velocity: Field) -> ScoredField:
    """Return the function that returns velocity and score."""

    def field(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        v = velocity(x, t)
        return v, PATH.score_from_velocity(v, x, t)

    return field


def _with_range(velocity: Field) -> Field:
    """Return a network that predicts noise, for the velocity, and an interpolation between the two variances."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        output = velocity(x, t)
        return output.repeat(1, 2, *[1] * (x.ndim - 2))

    return model
