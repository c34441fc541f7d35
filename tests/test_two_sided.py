"""Laws of two-sided paths, and of their exact fields between mixtures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from propagation import propagate
from torch import Tensor

from marks import slow_unless
from sitkit.backbones import Mixture, MixtureBridge
from sitkit.interpolants import Bridge, Linear, QuadraticBridge, SineBridge, TwoSided, check
from sitkit.samplers import (
    DDIM,
    KL,
    RK4,
    SDE,
    Ancestral,
    Brownian,
    Constant,
    Counted,
    Diffusion,
    Euler,
    EulerMaruyama,
    Exponential,
    ExponentialEuler,
    Heun,
    KLEta,
    Mean,
    MomentMatching,
    Rewarded,
    Sigma,
    SineSquared,
    StochasticHeun,
    Tweedie,
    grids,
    log_likelihood,
    plan,
    reparametrise,
    sample,
    sdeint,
)
from worlds import BRIDGES, Curved, Noiseless, doubles, random_mixture, slope

SOURCE, DATA = random_mixture(2, 2, seed=4), random_mixture(3, 2, seed=5)
NOISELESS = (Noiseless(), Bridge(0.0), SineBridge(0.0), QuadraticBridge(0.0))
bridges = pytest.mark.parametrize("bridge", BRIDGES, ids=repr)


def normal(mean: float, std: float) -> Mixture:
    return Mixture(torch.ones(1), doubles(mean)[None], doubles(std**2)[None, None])


@pytest.mark.parametrize("bridge", [*BRIDGES, *NOISELESS], ids=repr)
def test_check_accepts_every_bridge(bridge: TwoSided) -> None:
    check(bridge)
    check(BrokenBridge("none"))


@dataclass(frozen=True)
class BrokenBridge(TwoSided):
    """A two-sided path that breaks one law."""

    law: str

    def alpha(self, t: Tensor) -> Tensor:
        broken = {"alpha(0)": 0.97 * t + 0.03, "alpha(1)": 0.97 * t, "both": torch.relu(2 * t - 1)}
        return broken.get(self.law, t)

    def beta(self, t: Tensor) -> Tensor:
        broken = {"beta(0)": 0.97 * (1 - t), "beta(1)": 1 - 0.97 * t, "both": torch.relu(1 - 2 * t), "shape": t[None]}
        return broken.get(self.law, 1 - t)

    def gamma(self, t: Tensor) -> Tensor:
        gamma = t * (1 - t)
        broken = {
            "gamma(0)": gamma + 0.1 * (1 - t),
            "gamma(1)": gamma + 0.1 * t,
            "vanishes": gamma * (3 * t - 1) ** 2,
            "negative": -gamma,
            "root": gamma**0.25,
            "batch": gamma / t.max(),
        }
        return broken.get(self.law, gamma)

    def beta_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t) if self.law == "beta_dot" else super().beta_dot(t)

    def gamma_gamma_dot(self, t: Tensor) -> Tensor:
        return 2 * super().gamma_gamma_dot(t) if self.law == "product" else super().gamma_gamma_dot(t)


FUNCTIONS = ("alpha", "beta", "gamma")


@pytest.mark.parametrize(
    ("law", "message"),
    [
        *(
            (f"{name}({end})", rf"{name}\({end}\) = .* at t = {end}")
            for name in ("alpha", "beta", "gamma")
            for end in "01"
        ),
        ("vanishes", r"gamma is positive inside \(0, 1\), or 0 at all times' does not hold at t = 0.3333"),
        ("negative", "gamma is positive inside"),
        ("both", "alpha and beta are not both 0' does not hold at t = 0.5"),
        ("root", "gamma_gamma_dot is finite and continuous at both ends' does not hold at t = 0"),
        ("batch", "gamma acts on each time separately"),
        ("shape", "beta must keep the shape and dtype"),
        ("beta_dot", "beta_dot is its derivative"),
        ("product", "gamma_gamma_dot is gamma times gamma_dot"),
    ],
)
def test_check_names_the_law_that_is_broken(law: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(BrokenBridge(law))


@bridges
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_gamma_dot_is_half_the_derivative_of_gamma_squared_up_to_both_ends(
    bridge: TwoSided, dtype: torch.dtype
) -> None:
    t, h = doubles(0.0, 0.2, 0.5, 1.0), 1e-7
    before, after = (t - h).clamp(min=0), (t + h).clamp(max=1)
    expected = (bridge.gamma(after) ** 2 - bridge.gamma(before) ** 2) / (2 * (after - before))
    with torch.inference_mode():
        found = bridge.gamma_gamma_dot(t.to(dtype))
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5, atol=1e-6)


def test_ends_are_exact_in_single_precision() -> None:
    for bridge in BRIDGES:
        assert bridge.gamma(torch.tensor([0.0, 1.0])).tolist() == [0, 0]
    for path in (SineBridge(), QuadraticBridge(2.0)):
        t, unit = torch.tensor([0.0, 1.0]), torch.eye(2)
        assert path.velocity_from(torch.zeros(2, 2), unit, t).isfinite().all()


@bridges
def test_conversions_raise_at_the_times_at_which_they_are_infinite(bridge: TwoSided) -> None:
    x = torch.ones(3, 2)
    infinite = not isinstance(bridge, SineBridge | QuadraticBridge)
    for end, cure in ((0.0, "from t = 0.001"), (1.0, "up to t = 0.999")):
        for t in (torch.tensor(end), torch.tensor([0.5, end, 0.4])):
            said = rf"not finite at t = {end:.0f}, where .*gamma = 0.*: use times inside \(0, 1\), {cure}"
            with pytest.raises(ValueError, match=f"the score is {said}"):
                bridge.score_from_noise(x, t)
            if infinite:
                with pytest.raises(ValueError, match=f"the velocity is {said}"):
                    bridge.velocity_from(x, x, t)
            else:
                assert bridge.velocity_from(x, x, t).isfinite().all()
            assert bridge.drift(x, x, t).isfinite().all()


def test_without_noise_there_is_an_ode_and_no_score() -> None:
    x, t = torch.ones(3, 2), torch.tensor(0.3)
    for bridge in NOISELESS:
        for time in (t, torch.tensor(0.0)):
            assert torch.equal(bridge.velocity_from(x, 7 * x, time), x)
        with pytest.raises(ValueError, match="without noise there is no score and no SDE: solve the ODE"):
            bridge.score_from_noise(x, t)


class FromNoise(Bridge):
    """Without source, with the noise of the linear path."""

    def gamma(self, t: Tensor) -> Tensor:
        return 1 - t

    gamma_dot = TwoSided.gamma_dot
    gamma_gamma_dot = TwoSided.gamma_gamma_dot


def test_a_path_from_noise_is_the_special_case_without_source() -> None:
    one_sided, two_sided, nothing = Linear(), FromNoise(), torch.zeros(5, 2)
    x, eps = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.99])
    x_t = two_sided.mix(x, nothing, eps, t)
    torch.testing.assert_close(x_t, one_sided.mix(x, eps, t))
    velocity = two_sided.velocity_from(two_sided.drift(x, nothing, t), eps, t)
    torch.testing.assert_close(velocity, one_sided.velocity(x, eps, t))
    expected = one_sided.score_from_velocity(velocity, x_t, t)
    torch.testing.assert_close(two_sided.score_from_noise(eps, t), expected, rtol=1e-4, atol=1e-4)
    tiny = Mixture.isotropic(torch.zeros(1, 2, dtype=torch.float64), 1e-8)
    exact = MixtureBridge(tiny, DATA, two_sided)
    points, inside = (
        DATA.along(one_sided, 0.4).draw(5, torch.Generator().manual_seed(0)),
        torch.full((5,), 0.4).double(),
    )
    torch.testing.assert_close(exact.velocity(points, inside), DATA.velocity(one_sided)(points, inside))
    torch.testing.assert_close(exact.score(points, inside), DATA.score(one_sided)(points, inside))


@bridges
def test_times_are_of_rows_and_never_of_columns(bridge: TwoSided) -> None:
    x, source, z = torch.randn(3, 3, 1, 3, 3, dtype=torch.float64)
    t = doubles(0.2, 0.5, 0.8)
    together = [bridge.mix(x, source, z, t), bridge.drift(x, source, t), bridge.velocity_from(x, z, t)]
    together.append(bridge.score_from_noise(z, t))
    for k in range(3):
        a, b, c, time = x[k], source[k], z[k], t[k]
        alone = [bridge.mix(a, b, c, time), bridge.drift(a, b, time), bridge.velocity_from(a, c, time)]
        alone.append(bridge.score_from_noise(c, time))
        for whole, row in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[k], row)
    mixed = torch.func.vmap(bridge.mix)(x, source, z, t)
    torch.testing.assert_close(mixed, together[0])
    with torch.device("meta"):
        assert torch.equal(bridge.mix(x, source, z, t), together[0])
    assert bridge.mix(x[:, 0, 0, 0], source[:, 0, 0, 0], z[:, 0, 0, 0], t).shape == (3,)
    assert bridge.mix(x[:0], source[:0], z[:0], t[:0]).shape == (0, 1, 3, 3)
    assert bridge.mix(x.bfloat16(), source.bfloat16(), z.bfloat16(), t).dtype == torch.float32
    with pytest.raises(ValueError, match="states must have one shape"):
        bridge.mix(x, source[:, :, :1], z, t)
    with pytest.raises(ValueError, match=r"t must be a scalar or have shape \(B,\) with B = 3"):
        bridge.drift(x, source, t[:1])


@bridges
@pytest.mark.parametrize("time", [0.0, 0.03, 0.6, 1.0])
def test_exact_fields_satisfy_the_continuity_equation(bridge: TwoSided, time: float) -> None:
    """The score is the gradient of log p, and d/dt log p = -div b - b s, with p the mixture of pairs at time t."""
    exact = MixtureBridge(SOURCE, DATA, bridge)
    there, x = exact.along(time), exact.along(time).draw(5, torch.Generator().manual_seed(0)).requires_grad_()
    t = doubles(time).expand(5)
    (gradient,) = torch.autograd.grad(there.log_prob(x).sum(), x)
    velocity, score = exact.scored(x.detach(), t)
    torch.testing.assert_close(score, gradient)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda x: exact.velocity(x[None], t[:1])[0]))(x.detach())
    divergence = jacobians.diagonal(dim1=1, dim2=2).sum(1)
    h = 1e-6
    low, high = max(time - h, 0.0), min(time + h, 1.0)
    change = (exact.along(high).log_prob(x.detach()) - exact.along(low).log_prob(x.detach())) / (high - low)
    torch.testing.assert_close(change, -divergence - (velocity * score).sum(1), rtol=1e-4, atol=2e-4)


@bridges
def test_the_states_are_source_and_data_at_the_ends(bridge: TwoSided) -> None:
    exact, x = MixtureBridge(SOURCE, DATA, bridge), torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(exact.along(0.0).log_prob(x), SOURCE.log_prob(x))
    torch.testing.assert_close(exact.along(1.0).log_prob(x), DATA.log_prob(x))
    middle, count = exact.along(0.4), 100_000
    generator = torch.Generator().manual_seed(0)
    parts = SOURCE.draw(count, generator), torch.randn(count, 2, generator=generator, dtype=torch.float64)
    x_t = bridge.mix(DATA.draw(count, generator), *parts, torch.tensor(0.4).double())
    drawn = middle.draw(count, generator)
    torch.testing.assert_close(x_t.mean(0), drawn.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(x_t.T), torch.cov(drawn.T), rtol=0, atol=0.03)


@bridges
def test_the_four_fields_are_two(bridge: TwoSided) -> None:
    exact, t = MixtureBridge(SOURCE, DATA, bridge), doubles(0.05, 0.3, 0.7, 0.95)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drift, noise, velocity, score = (field(x, t) for field in (exact.drift, exact.noise, exact.velocity, exact.score))
    torch.testing.assert_close(bridge.velocity_from(drift, noise, t), velocity)
    torch.testing.assert_close(bridge.score_from_noise(noise, t), score)
    assert exact.noise(x, torch.zeros(())).tolist() == torch.zeros(4, 2).tolist()
    single = exact.velocity(x.float(), t.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), velocity, rtol=1e-4, atol=1e-4)
    assert torch.equal(exact.velocity(x.bfloat16(), t), exact.velocity(x.bfloat16().float(), t).bfloat16())
    by_row = torch.func.vmap(lambda x, t: exact.velocity(x[None], t[None])[0])(x, t)
    torch.testing.assert_close(by_row, velocity)
    torch.testing.assert_close(exact.velocity(x, t[1]), exact.velocity(x, t[1].expand(4)))
    torch.testing.assert_close(exact.velocity(x, t[1]), exact.velocity(x, torch.full((4,), float(t[1])).double()))
    with torch.inference_mode():
        assert torch.equal(exact.velocity(x, t), velocity)
    assert exact.velocity(x[:0], t[:0]).shape == (0, 2)


def test_one_velocity_may_have_two_scores() -> None:
    """Scaling source, data and noise together leaves the velocity of centred normals and changes the score."""
    x, t = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None], doubles(0.4)
    narrow, wide = (MixtureBridge(normal(0, c), normal(0, 2 * c), Bridge(c**2)) for c in (1.0, 3.0))
    torch.testing.assert_close(narrow.velocity(x, t[0]), wide.velocity(x, t[0]))
    torch.testing.assert_close(narrow.score(x, t[0]), 9 * wide.score(x, t[0]))
    assert (narrow.score(x, t[0]) - wide.score(x, t[0])).abs().max() > 0.5


DIFFUSIONS: dict[str, Callable[[TwoSided], Diffusion]] = {
    "constant": lambda bridge: Constant(0.7),
    "sine": lambda bridge: SineSquared(1.3),
    "gamma": lambda bridge: bridge.gamma,
    "own": lambda bridge: lambda t: 2 * t * (1 - t),
}


@bridges
@pytest.mark.parametrize("name", DIFFUSIONS)
@pytest.mark.parametrize("solver", [EulerMaruyama, StochasticHeun])
def test_every_w_keeps_the_marginal_at_the_stated_weak_order(
    bridge: TwoSided, name: str, solver: type[EulerMaruyama] | type[StochasticHeun]
) -> None:
    source, data = normal(-1.0, 0.8), normal(1.5, 0.5)
    exact = MixtureBridge(source, data, bridge)
    sde = SDE.of(exact.scored, DIFFUSIONS[name](bridge))
    errors = []
    for steps in (32, 64, 128):
        times = torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64)
        alpha, beta, gamma = bridge.alpha(times), bridge.beta(times), bridge.gamma(times)
        means, variances = alpha * 1.5 - beta, alpha**2 * 0.25 + beta**2 * 0.64 + gamma**2
        chain = propagate(lambda noise: solver(sde, noise), times, means[0], variances[0])
        mean, variance = (torch.stack(values) for values in zip(*chain, strict=True))
        errors.append(float(((mean - means[1:]).abs() + (variance - variances[1:]).abs()).max()))
    assert slope((32, 64, 128), errors) == pytest.approx(solver.order, abs=0.2)
    assert errors[-1] < 0.03


@pytest.mark.parametrize(
    ("bridge", "name"), [*zip(BRIDGES, ("constant", "sine", "gamma", "own", "gamma"), strict=True)]
)
def test_stochastic_samples_go_from_mixture_to_mixture(bridge: TwoSided, name: str) -> None:
    """From t = 0 to t = 1: the exact fields are finite at both ends."""
    exact, count = MixtureBridge(SOURCE, DATA, bridge), 2_000
    x = SOURCE.draw(count, torch.Generator().manual_seed(0))
    sde = SDE.of(exact.scored, DIFFUSIONS[name](bridge))
    times = torch.linspace(0, 1, 41, dtype=torch.float64)
    reached = sample(EulerMaruyama(sde, Brownian(1, torch.arange(count))), x, times, last=Mean(sde))
    mean = (DATA.weights[:, None] * DATA.means).sum(0)
    centred, gaps = reached - mean, DATA.means - mean
    parts = DATA.covariances + gaps[:, :, None] * gaps[:, None]
    torch.testing.assert_close(reached.mean(0), mean, rtol=0, atol=0.06)
    covariance = (DATA.weights[:, None, None] * parts).sum(0)
    torch.testing.assert_close(centred.T @ centred / count, covariance, rtol=0, atol=0.1)


@pytest.mark.parametrize("bridge", [slow_unless(number in (0, 1), one) for number, one in enumerate(BRIDGES)], ids=repr)
def test_the_ode_goes_to_the_data_and_back(bridge: TwoSided) -> None:
    exact = MixtureBridge(SOURCE, DATA, bridge)
    x = SOURCE.draw(50, torch.Generator().manual_seed(0))
    times = torch.linspace(0, 1, 65, dtype=torch.float64)
    there = sample(RK4(exact.velocity), x, times)
    torch.testing.assert_close(sample(RK4(exact.velocity), there, times.flip(0)), x, rtol=0, atol=1e-3)
    found = log_likelihood(exact.velocity, there, prior=SOURCE.log_prob, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.latent, x, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.log_prob, DATA.log_prob(there), rtol=0, atol=1e-3)
    inside = log_likelihood(
        exact.velocity, there, interval=(0.9, 0.2), prior=exact.along(0.2).log_prob, rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(inside.log_prob, exact.along(0.9).log_prob(there), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bridge", [Bridge(), QuadraticBridge(2.0)])
def test_solvers_have_their_order_between_two_mixtures(bridge: TwoSided) -> None:
    velocity = MixtureBridge(SOURCE, DATA, bridge).velocity
    x = SOURCE.draw(20, torch.Generator().manual_seed(1))

    def reached(solver: type[Euler] | type[Heun] | type[RK4], steps: int) -> Tensor:
        return sample(solver(velocity), x, torch.linspace(0.1, 0.9, steps + 1, dtype=torch.float64))

    exact, grids = reached(RK4, 100), (16, 32, 64)
    for solver in (Euler, Heun):
        errors = [float((reached(solver, steps) - exact).abs().mean()) for steps in grids]
        assert slope(grids, errors) == pytest.approx(solver.order, abs=0.2)


def test_without_diffusion_the_sde_is_the_ode_and_one_call_gives_both_fields() -> None:
    exact, x, times = MixtureBridge(SOURCE, DATA, Bridge()), torch.randn(6, 2), torch.linspace(0.1, 0.9, 5)
    still = SDE.of(exact.scored, Constant(0.0))
    torch.testing.assert_close(sample(EulerMaruyama(still), x, times), sample(Euler(exact.velocity), x, times))
    assert isinstance(still.coefficient(times), Tensor)
    counted = Counted(exact.scored)  # type: ignore[arg-type]
    sde = SDE.of(counted, Constant(1.0))  # type: ignore[arg-type]
    sample(EulerMaruyama(sde), x, times, last=Mean(sde))
    assert counted.calls == 4
    assert sdeint(SDE.of(exact.scored, SineSquared()), x, times, method="heun").isfinite().all()
    with pytest.raises(ValueError, match=r"w\(t\) must be finite and >= 0"):
        SDE.of(exact.scored, lambda t: t - 1)(x, torch.tensor(0.5))


PATH: Linear = Bridge()  # type: ignore[assignment]
REFUSED: dict[str, Callable[[], object]] = {
    "SDE": lambda: SDE(torch.add, PATH, Constant()),
    "Exponential": lambda: Exponential(torch.add, PATH),
    "ExponentialEuler": lambda: ExponentialEuler(torch.add, PATH),
    "plan": lambda: plan(torch.add, PATH, evaluations=5),
    "DDIM": lambda: DDIM(torch.add, PATH),
    "Tweedie": lambda: Tweedie(torch.add, PATH),
    "Ancestral": lambda: Ancestral(torch.add, PATH),
    "reparametrise": lambda: reparametrise(torch.add, PATH, Linear()),
    "reparametrise, to": lambda: reparametrise(torch.add, Linear(), PATH),
    "MomentMatching": lambda: MomentMatching(torch.add, PATH, torch.neg, torch.zeros(1), 1.0),
    "Rewarded": lambda: Rewarded(torch.add, PATH, torch.sum),
    "Sigma": lambda: Sigma(PATH),
    "KL": lambda: KL(PATH),
    "KLEta": lambda: KLEta(PATH, 0.1, torch.ones_like),
    "a grid": lambda: grids.power(PATH, 5),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_a_path_from_noise_refuses_a_two_sided_one(name: str) -> None:
    said = r"takes a path from noise to data, .*; got Bridge\(scale=1.0\): for a two-sided path, (solve|use)"
    with pytest.raises(ValueError, match=said) as told:
        REFUSED[name]()
    assert "\n" not in str(told.value)


def test_mixtures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of dimensions, got 2 and 3"):
        MixtureBridge(SOURCE, random_mixture(1, 3, seed=0), Bridge())
    with pytest.raises(ValueError, match=r"takes a two-sided path, such as Bridge; got Linear\(\): use Mixture"):
        MixtureBridge(SOURCE, DATA, Linear())  # type: ignore[arg-type]
    exact = MixtureBridge(SOURCE, DATA, Curved())
    with pytest.raises(ValueError, match=r"x of shape \(B, 2\), got \(4, 3\)"):
        exact.score(torch.randn(4, 3), torch.rand(4))
    with pytest.raises(ValueError, match=r"t must be a scalar or have shape \(4,\)"):
        exact.score(torch.randn(4, 2), torch.rand(2))


def test_a_mixture_refuses_a_two_sided_path_with_what_to_use() -> None:
    world: Any = Mixture.isotropic(torch.zeros(1, 2), 1.0)
    for call in (world.velocity, world.data, world.noise, world.score, lambda path: world.along(path, 0.5)):
        with pytest.raises(ValueError, match=r"is a two-sided path: use MixtureBridge\(source, data, path\)"):
            call(Bridge())
    with pytest.raises(ValueError, match="scale must be finite and at least 0, got a"):
        Bridge("a")  # type: ignore[arg-type]
