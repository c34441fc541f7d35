"""Paths with infinite velocities at an end: samples are correct, or one line names the time and the fix."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import VP, Interpolant, Linear
from sitkit.objectives import Data, Hybrid, Matching, Noise, Quantity, Score, Velocity
from sitkit.samplers import (
    KL,
    SDE,
    Field,
    Heun,
    Sigma,
    adaptive,
    log_likelihood,
    plan,
    sample,
    sdeint,
    solve_each,
)
from solvers import NOISE, SOLVERS, STOCHASTIC, WORLD, start
from worlds import PATHS

EXACT: dict[type[Quantity], str] = {Velocity: "velocity", Noise: "noise", Score: "score", Data: "data"}


Way = Callable[[Field, Interpolant, Tensor], Tensor]
TOLERANT = {"rtol": 1e-2, "atol": 1e-2}
WHOLE = torch.linspace(0, 1, 6)


def planned(w: type[KL] | None) -> Way:
    def way(velocity: Field, path: Interpolant, x: Tensor) -> Tensor:
        made = plan(velocity, path, w=w(path) if w else None, evaluations=5, noise=NOISE)
        return sample(made.solver, x, made.times)

    return way


def along(name: str, times: Tensor) -> Way:
    return lambda velocity, path, x: sample(SOLVERS[name](velocity, NOISE), x, times)


def by_torchsde(method: str) -> Way:
    return lambda v, path, x: sdeint(SDE(v, path, Sigma(path)), x, WHOLE, method=method, noise=NOISE)


WAYS: dict[str, Way] = {
    **{name: along(name, WHOLE) for name in SOLVERS},
    **{f"{name}, back": along(name, WHOLE.flip(0)) for name in SOLVERS if name not in STOCHASTIC},
    "plan": planned(None),
    "plan, KL": planned(KL),
    "adaptive": lambda v, path, x: adaptive(v, x, 0, 1, **TOLERANT),  # type: ignore[arg-type]
    "adaptive, back": lambda v, path, x: adaptive(v, x, 1, 0, **TOLERANT),  # type: ignore[arg-type]
    "solve_each": lambda v, path, x: solve_each(v, x, 0, 1, **TOLERANT),  # type: ignore[arg-type]
    "solve_each, back": lambda v, path, x: solve_each(v, x, 1, 0, **TOLERANT),  # type: ignore[arg-type]
    "log_likelihood": lambda v, path, x: log_likelihood(v, x, **TOLERANT).log_prob,  # type: ignore[arg-type]
    "sdeint": by_torchsde("euler"),
    "sdeint, heun": by_torchsde("heun"),
}


@pytest.mark.parametrize("predict", EXACT)
@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("name", WAYS)
def test_no_end_gives_nan(
    name: str, path: Interpolant, predict: type[Quantity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all of [0, 1], and back, samples are finite or one line names the time and the cure."""
    monkeypatch.setattr("solvers.PATH", path)
    velocity = Matching(path, predict).field(getattr(WORLD, EXACT[predict])(path))
    told = ""
    try:
        told = "" if WAYS[name](velocity, path, start()).isfinite().all() else "not finite"
    except ValueError as error:
        told = str(error)
    assert not told or "t = " in told or "from 0.0 to 1.0" in told or "from 1.0 to 0.0" in told


class Soft(Linear):
    """A path that comes to the data slowly: there velocity and noise say nothing, and the state is the data."""

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - t) ** 2

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -2 * (1 - t)

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - (1 - t) ** 3

    def alpha_dot(self, t: Tensor) -> Tensor:
        return 3 * (1 - t) ** 2


@pytest.mark.parametrize("path", [*PATHS, Soft()], ids=lambda path: type(path).__name__)
def test_data_are_the_state_where_there_is_no_noise(path: Linear) -> None:
    x = start(torch.float64)
    for t in (torch.ones((), dtype=torch.float64), torch.ones(6, dtype=torch.float64)):
        torch.testing.assert_close(path.data_from_velocity(torch.randn_like(x), x, t), x)


def test_infinite_ends_are_reported_on_a_device_too() -> None:
    """On the device `meta` no value can be asked for: the time is the one that the solver knows."""
    x, times = torch.empty(2, 1, device="meta"), torch.linspace(0, 1, 3)
    fields: list[tuple[Field, str]] = [
        (Matching(Linear(), Noise).field(lambda x, t: x), "t = 0, "),
        (Hybrid(Linear()).field(lambda x, t: x.repeat(1, 2)), "t = 0, "),
        (Matching(Linear(), Data).field(lambda x, t: x), "t = 1, "),
        (Mixture.isotropic(torch.zeros(1, 1), 1.0).velocity(VP()), "t = 1, "),
    ]
    for field, said in fields:
        with pytest.raises(ValueError, match=said):
            sample(Heun(field), x, times)
    assert sample(Heun(Matching(Linear(), Noise).field(lambda x, t: x)), x, times[1:]).device.type == "meta"


def test_an_infinite_end_behind_the_last_evaluation_is_reported() -> None:
    noise = Matching(Linear(), Noise).field(WORLD.noise(Linear()))
    made = plan(noise, Linear(), evaluations=20)
    with pytest.raises(ValueError, match=r"not finite at t = 0, where alpha = 0.*start later, at t = 0.001"):
        sample(made.solver, start(), made.times)
    later = plan(noise, Linear(), evaluations=20, interval=(1e-3, 1.0))
    exact = plan(WORLD.velocity(Linear()), Linear(), evaluations=20)
    torch.testing.assert_close(
        sample(later.solver, start(), later.times), sample(exact.solver, start(), exact.times), rtol=0, atol=0.02
    )
