"""Equal to the values of the official code (tests/golden/README.md) wherever those are finite."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.objectives import Hybrid, Matching, Noise, Quantity, Score, Velocity, Weight, weights
from sitkit.samplers import (
    DDIM,
    KL,
    RK4,
    SDE,
    Constant,
    Diffusion,
    Euler,
    EulerMaruyama,
    Field,
    Heun,
    LearnedAncestral,
    Mean,
    Midpoint,
    OneStep,
    RaisedCosine,
    Sigma,
    SineSquared,
    Tweedie,
    adaptive,
    log_likelihood,
    sample,
)

PATHS: dict[str, Interpolant] = {"linear": Linear(), "gvp": GVP(), "vp": VP()}
QUANTITIES: dict[str, type[Quantity]] = {"velocity": Velocity, "noise": Noise, "score": Score}
SOLVERS: dict[str, Callable[[Field], OneStep]] = {"euler": Euler, "midpoint": Midpoint, "heun2": Heun, "rk4": RK4}


def read(name: str) -> dict[str, Tensor]:
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


PATH_ARRAYS, LOSSES, SAMPLES, LIKELIHOOD, CHAIN = map(read, ("paths", "losses", "samplers", "likelihood", "ddpm"))


def assert_equal(mine: Tensor, golden: Tensor, share: float = 1e-9) -> None:
    """Assert equality to 1e-6, relative to each value and to the largest one, where the golden values are finite."""
    finite = golden.isfinite()
    assert finite.any()
    torch.testing.assert_close(mine[finite], golden[finite], rtol=1e-6, atol=share * float(golden[finite].abs().max()))


def diffusions(path: Interpolant, norm: float) -> dict[str, Diffusion]:
    """Return w = 2 D for the official forms."""
    return {
        "constant": Constant(2 * norm),
        "sbdm": KL(path, norm),
        "sigma": Sigma(path, 2 * norm),
        "linear": lambda t: 2 * norm * (1 - t),
        "decreasing": lambda t: (1 + norm * torch.cos(math.pi * t)) ** 2 / 2,
        "increasing-decreasing": SineSquared(2 * norm),
    }


@pytest.mark.parametrize("name", PATHS)
def test_paths(name: str) -> None:
    path, golden = PATHS[name], PATH_ARRAYS
    t, x = golden["t"], golden["x"]
    for function in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        assert_equal(getattr(path, function)(t), golden[f"{name}.{function}"])
    for conversion in ("score_from_velocity", "noise_from_velocity", "velocity_from_score"):
        given = golden["score" if conversion == "velocity_from_score" else "velocity"]
        assert_equal(getattr(path, conversion)(given, x, t), golden[f"{name}.{conversion}"])
    for form, w in diffusions(path, 1.3).items():
        assert_equal(w(t), 2 * golden[f"{name}.diffusion.{form.replace('sbdm', 'SBDM')}"])
    torch.testing.assert_close(RaisedCosine()(t), diffusions(path, 1.0)["decreasing"](t))


@pytest.mark.parametrize(("name", "predict", "weighting"), [key.split(".") for key in LOSSES if key.count(".") == 2])
def test_losses(name: str, predict: str, weighting: str) -> None:
    path, golden = PATHS[name], LOSSES
    weight: Weight | None = None if weighting == "none" else getattr(weights, weighting)(path)
    objective = Matching(path, QUANTITIES[predict], weight=weight)
    loss = objective(lambda x_t, t: golden["output"], golden["data"], golden["noise"], golden["t"])
    assert_equal(loss, golden[f"{name}.{predict}.{weighting}"])


def field(name: str, predict: str) -> Field:
    """Return the velocity of the official network."""
    network: Field = lambda x, t: (x @ SAMPLES["A"]) * (1 + t[:, None]) + SAMPLES["b"]  # noqa: E731
    return Matching(PATHS[name], QUANTITIES[predict]).field(network)


@pytest.mark.parametrize(("name", "predict"), [*itertools.product(PATHS, QUANTITIES)])
def test_odes(name: str, predict: str) -> None:
    velocity, key = field(name, predict), f"ode.{name}.{predict}"
    start, end = SAMPLES[f"{key}.interval"].double().tolist()
    times = torch.linspace(start, end, 9, dtype=torch.float64)
    for method, solver in SOLVERS.items():
        assert_equal(sample(solver(velocity), SAMPLES["init"], times), SAMPLES[f"{key}.{method}"])
    reached = adaptive(velocity, SAMPLES["init"], start, end, rtol=1e-10, atol=1e-11)
    assert_equal(reached, SAMPLES[f"{key}.dopri5"])


STOCHASTIC = [key.split(".") for key in SAMPLES if key.startswith("sde.") and key.count(".") == 5]


@pytest.mark.parametrize(
    ("name", "predict", "form", "last"),
    [(name, predict, form, last) for _, name, predict, solver, form, last in STOCHASTIC if solver == "euler"],
)
def test_sdes(name: str, predict: str, form: str, last: str) -> None:
    path, key = PATHS[name], f"sde.{name}.{predict}.euler.{form}.{last}"
    velocity, golden = field(name, predict), SAMPLES[key]
    sde = SDE(velocity, path, diffusions(path, 0.7)[form])
    start, end = SAMPLES[f"{key}.interval"].tolist()
    times = torch.linspace(start, end, 10, dtype=torch.float64)
    driven = iter(SAMPLES["sde.gaussians"])
    solver = EulerMaruyama(sde, noise=lambda x, t, s: next(driven))
    if not golden.isfinite().all():  # the official code divides by zero
        with pytest.raises(ValueError, match=r"w\(t\) must be finite"):
            sample(solver, SAMPLES["init"], times)
        return
    state = sample(solver, SAMPLES["init"], times)
    lasts: dict[str, OneStep] = {"mean": Mean(sde), "euler": Euler(velocity), "tweedie": Tweedie(velocity, path)}
    if last != "none":
        state = lasts[last].step(state, times[-1], times[-1] + 0.04)
    assert_equal(state, golden)


def test_the_official_code_divides_by_zero_eight_times() -> None:
    """The official `heun` is of weak order 1, so it is not reproduced."""
    keys = [".".join(key) for key in STOCHASTIC if key[3] == "euler"]
    assert len(keys) == 3 * 3 * 5 * 4
    assert sum(not SAMPLES[key].isfinite().all() for key in keys) == 8


def test_likelihood() -> None:
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return x * LIKELIHOOD["diagonal"] * (1 + t[:, None])

    found = log_likelihood(velocity, LIKELIHOOD["data"], rtol=1e-9, atol=1e-10)
    assert_equal(found.log_prob, LIKELIHOOD["log_likelihood"])
    assert_equal(found.latent, LIKELIHOOD["latent"])


CHAIN_PATH = DDPM()
SINGLE = 1e-6
"""Of the chain, the official code keeps the schedule in float64 and reads it in float32."""


def chain_network(x: Tensor, t: Tensor) -> Tensor:
    """Return noise and range as the arrays' README says, at the timestep of t."""
    timestep = CHAIN_PATH.timestep(t).reshape(-1, 1, 1, 1)
    noise = torch.einsum("ck,bkij->bcij", CHAIN["A"], x) * (1 + timestep / 1000) + CHAIN["b"].reshape(1, -1, 1, 1)
    return torch.cat([noise, torch.tanh(CHAIN["V"].reshape(1, -1, 1, 1) * x)], dim=1)


def test_the_schedule_of_the_chain() -> None:
    path = CHAIN_PATH
    for part, times in (("full", path.times(1000)), ("part", path.times(250))):
        t, s = times[:-1].flip(0), times[1:].flip(0)
        assert_equal(path.alpha(t) ** 2, CHAIN[f"{part}.alphas_cumprod"])
        assert_equal(path.posterior(t, s).forward, CHAIN[f"{part}.betas"])
        assert_equal(path.posterior(t, s).variance, CHAIN[f"{part}.posterior_variance"])
    assert torch.equal(path.timestep(path.times(250)[:-1]).round().long().flip(0), CHAIN["part.timesteps"])


def test_the_hybrid_loss_of_the_chain() -> None:
    t = CHAIN_PATH.time(CHAIN["t"])
    assert_equal(CHAIN_PATH.mix(CHAIN["data"], CHAIN["noise"], t), CHAIN["x_t"])
    error, bound = Hybrid(CHAIN_PATH).terms(chain_network, CHAIN["data"], CHAIN["noise"], t)
    assert_equal(error, CHAIN["loss.mse"])
    assert_equal(bound, CHAIN["loss.vb"], SINGLE)
    assert_equal(Hybrid(CHAIN_PATH)(chain_network, CHAIN["data"], CHAIN["noise"], t), CHAIN["loss.loss"], SINGLE)


def test_a_step_of_the_chain() -> None:
    sampler = LearnedAncestral(chain_network, CHAIN_PATH)
    for row, timestep in enumerate(CHAIN["t"]):
        t, s = CHAIN_PATH.time(timestep), CHAIN_PATH.time(timestep - 1)
        x = CHAIN["x_t"][row : row + 1]
        mean, log_variance = sampler.distribution(x, t, s)
        assert_equal(mean[0], CHAIN["step.mean"][row], SINGLE)
        if (
            timestep
        ):  # in the last step the official code bounds the variance by that of the step before, and adds no noise
            assert_equal(log_variance[0], CHAIN["step.log_variance"][row], SINGLE)
            assert_equal(log_variance[0].exp(), CHAIN["step.variance"][row], SINGLE)
        data = CHAIN_PATH.data_from_velocity(Hybrid(CHAIN_PATH).field(chain_network)(x, t[None]), x, t)
        assert_equal(data[0], CHAIN["step.pred_xstart"][row], SINGLE)


def test_the_samplers_of_the_chain() -> None:
    times = CHAIN_PATH.times(250)
    driven = iter(CHAIN["gaussians"])
    ancestral = LearnedAncestral(chain_network, CHAIN_PATH, noise=lambda x, t, s: next(driven))
    assert_equal(sample(ancestral, CHAIN["init"], times), CHAIN["ancestral"], SINGLE)
    ddim = DDIM(Hybrid(CHAIN_PATH).field(chain_network), CHAIN_PATH)
    assert_equal(sample(ddim, CHAIN["init"], times), CHAIN["ddim"], SINGLE)
