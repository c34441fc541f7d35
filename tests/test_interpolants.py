"""Laws of paths."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.interpolants import DDPM, VP, Interpolant, Linear, check
from worlds import FROM_NOISE, PATHS, RING, Quadratic, on_images, random_mixture

paths = st.sampled_from(PATHS)
times = st.floats(0.02, 0.98)
shapes = st.sampled_from([(4, 2), (3, 1, 3, 3), (2, 2, 2, 2), (5,)])
dtypes = st.sampled_from([torch.float32, torch.float64])


def draw(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return x, eps


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_check_accepts_every_path(path: Interpolant) -> None:
    check(path)


@dataclass(frozen=True)
class Broken(Interpolant):
    """A path that breaks one law."""

    law: str

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        broken = {
            "alpha(0)": 0.97 * t + 0.03,
            "alpha(1)": 0.97 * t,
            "batch": t * t.max() / 0.99,
            "shape": t[None],
            "precision": t.double(),
            "single": t.float(),
            "positive": t * (1.2 * t - 0.2),
            "grows": t + 0.5 * torch.sin(2 * torch.pi * t) * (1 - t) * 2,
        }
        return broken.get(self.law, t)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        u = 1 - t
        broken = {
            "sigma(0)": 0.97 * u,
            "sigma(1)": 0.97 * u + 0.03,
            "sigma positive": u * (1 - 4 * t * u * 1.2),
        }
        return broken.get(self.law, u)

    def alpha_dot(self, t: torch.Tensor) -> torch.Tensor:
        if self.law == "finite":
            return torch.where(t > 0.5, torch.inf, 1.0).to(t.dtype)
        return torch.full_like(t, 1.1) if self.law == "alpha_dot" else Interpolant.alpha_dot(self, t)

    def sigma_dot(self, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(t, -1.1) if self.law == "sigma_dot" else Interpolant.sigma_dot(self, t)


def test_check_passes_valid_paths() -> None:
    check(Broken("none"))


@pytest.mark.parametrize(
    ("law", "message"),
    [
        *(
            (end, f"{end[:5]}\\({end[6]}\\) = .* at t = {end[6]}")
            for end in ("alpha(0)", "alpha(1)", "sigma(0)", "sigma(1)")
        ),
        ("batch", "alpha acts on each time separately"),
        ("shape", "alpha must keep the shape and dtype"),
        ("precision", "alpha must keep the shape and dtype"),
        ("single", "alpha must keep the shape and dtype"),
        ("finite", "alpha_dot is finite' does not hold at t = 0.505"),
        ("positive", "sigma are positive inside .* at t = 0.01"),
        ("sigma positive", "sigma are positive inside"),
        ("alpha_dot", "alpha_dot is its derivative"),
        ("sigma_dot", "sigma_dot is its derivative"),
        ("grows", "alpha / sigma grows"),
    ],
)
def test_check_names_the_law_that_is_broken(law: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(Broken(law))


@given(paths, shapes, dtypes, st.integers(0, 1000), st.lists(times, min_size=5, max_size=5))
def test_all_six_conversions_recover_the_mixed_quantities(path, shape, dtype, seed, t) -> None:  # type: ignore[no-untyped-def]
    x, eps = draw(shape, dtype, seed)
    t = torch.tensor(t[: shape[0]], dtype=dtype)
    x_t, velocity = path.mix(x, eps, t), path.velocity(x, eps, t)
    score = -eps / path.sigma(t).reshape(-1, *[1] * (len(shape) - 1))
    near = 2e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(path.noise_from_velocity(velocity, x_t, t), eps, rtol=near, atol=near)
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, t), score, rtol=near, atol=near)
    torch.testing.assert_close(path.data_from_velocity(velocity, x_t, t), x, rtol=near, atol=near)
    if dtype == torch.float64:  # in float32 the inverse amplifies rounding by 1 / alpha and 1 / sigma
        torch.testing.assert_close(path.velocity_from_noise(eps, x_t, t), velocity, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(path.velocity_from_score(score, x_t, t), velocity, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(path.velocity_from_data(x, x_t, t), velocity, rtol=1e-7, atol=1e-7)


@given(paths, times, st.integers(0, 1000))
def test_a_scalar_time_is_that_time_for_every_row(path, t, seed) -> None:  # type: ignore[no-untyped-def]
    x, eps = draw((3, 1, 3, 3), torch.float64, seed)
    one, many = torch.tensor(t), torch.full((3,), t)
    torch.testing.assert_close(path.mix(x, eps, one), path.mix(x, eps, many), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_images_as_wide_as_the_batch_are_scaled_by_row(path: Interpolant) -> None:
    x, eps = draw((3, 1, 3, 3), torch.float64, 0)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    rows = [path.alpha(u) * a + path.sigma(u) * b for u, a, b in zip(t, x, eps, strict=True)]
    torch.testing.assert_close(path.mix(x, eps, t), torch.stack(rows))
    with pytest.raises(ValueError, match="scalar or have shape"):
        path.mix(x, eps, t[:, None, None, None])
    with pytest.raises(ValueError, match="states must have one shape"):
        path.mix(x, eps[..., :1], t)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_given_derivatives_are_those_of_forward_mode(path: Interpolant) -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(path.alpha_dot(t), Interpolant.alpha_dot(path, t))
    torch.testing.assert_close(path.sigma_dot(t), Interpolant.sigma_dot(path, t))
    path.alpha_dot(torch.tensor(0.5).expand(4))  # a view, which forward mode refuses


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("shape", [(2,), (1, 2, 2)], ids=["points", "images"])
def test_score_of_the_exact_velocity_is_the_gradient_of_the_log_density(
    path: Interpolant, shape: tuple[int, ...]
) -> None:
    world = RING if shape == (2,) else random_mixture(3, 4, seed=0)
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    x = world.draw(64, generator).reshape(-1, *shape)
    x_t = path.mix(x, torch.randn(x.shape, generator=generator, dtype=torch.float64), t)
    velocity = on_images(world.velocity(path))(x_t, t)
    score = on_images(world.score(path))(x_t, t)
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, t), score, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(path.velocity_from_score(score, x_t, t), velocity, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", FROM_NOISE, ids=repr)
def test_where_there_is_only_noise_the_noise_is_the_state(path: Interpolant) -> None:
    x_t, velocity = draw((4, 2), torch.float32, 0)
    zero = torch.zeros(4)
    torch.testing.assert_close(path.noise_from_velocity(velocity, x_t, zero), x_t)
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, zero), -x_t)


@pytest.mark.parametrize("path", [p for p in PATHS if not isinstance(p, Quadratic)], ids=repr)
def test_float32_ends_are_as_good_as_float64(path: Interpolant) -> None:
    for gap in (0.0, 1e-6, 1e-4):
        near, exact = torch.tensor(1.0) - gap, torch.tensor(1.0).sub(gap).double()
        torch.testing.assert_close(path.sigma(near).double(), path.sigma(exact), rtol=1e-5, atol=0)
        assert path.sigma(near) >= 0


def test_half_precision_states_are_mixed_in_single() -> None:
    x, eps = draw((4, 2), torch.bfloat16, 0)
    assert Linear().mix(x, eps, torch.rand(4)).dtype == torch.float32
    assert Linear().mix(x, eps, torch.tensor(0.5)).dtype == torch.float32


def test_the_wider_of_two_precisions_is_used() -> None:
    x, eps = draw((4, 2), torch.float64, 0)
    t = torch.rand(4)
    assert Linear().mix(x.float(), eps, t).dtype == Linear().mix(x, eps.float(), t).dtype == torch.float64


def test_noise_of_any_scale_is_read_where_there_is_only_noise() -> None:
    class Loud(Linear):
        def sigma(self, t: torch.Tensor) -> torch.Tensor:
            return 2 * (1 - t)

    x_t, velocity = draw((4, 2), torch.float32, 0)
    torch.testing.assert_close(Loud().noise_from_velocity(velocity, x_t, torch.zeros(4)), x_t / 2)


def test_double_times_leave_single_states_single() -> None:
    x, eps = draw((4, 2), torch.float32, 0)
    assert Quadratic().score_from_velocity(x, eps, torch.rand(4, dtype=torch.float64)).dtype == torch.float32


def test_vp_refuses_a_falling_beta() -> None:
    for low, high in ((3.0, 2.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match="beta_min <= beta_max"):
            VP(beta_min=low, beta_max=high)
    nan, inf = float("nan"), float("inf")
    for low, high in ((0.0, 0.0), (nan, 20.0), (0.1, nan), (0.1, inf), (inf, inf)):
        with pytest.raises(ValueError, match="beta_max > 0 and finite"):
            VP(beta_min=low, beta_max=high)
    for low, high in ((0.0, 20.0), (8.0, 8.0)):
        assert VP(low, high).alpha(torch.ones(())) == 1
    near, end = VP(0.0, 20.0).sigma_dot(torch.tensor([1 - 1e-9, 1.0], dtype=torch.float64))
    assert float(end) == pytest.approx(-(10**0.5))
    assert float(near) == pytest.approx(float(end), rel=1e-6)


def test_conversions_compile_whole() -> None:
    x, eps = draw((4, 2), torch.float32, 0)
    t = torch.rand(4)
    for path in PATHS:
        torch.compiler.reset()
        compiled = torch.compile(path.score_from_velocity, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, eps, t), path.score_from_velocity(x, eps, t))


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_the_posterior_is_that_of_bayes_rule(path: Interpolant) -> None:
    t, s = torch.tensor([0.2, 0.6], dtype=torch.float64), torch.tensor([0.5, 0.7], dtype=torch.float64)
    known = path.posterior(t, s)
    # jointly normal given x = 1: x_s = alpha_s + sigma_s z, x_t = a x_s + noise
    a = path.alpha(t) / path.alpha(s)
    covariance, variance_s, variance_t = a * path.sigma(s) ** 2, path.sigma(s) ** 2, path.sigma(t) ** 2
    gain = covariance / variance_t
    torch.testing.assert_close(known.state, gain)
    torch.testing.assert_close(known.data, path.alpha(s) - gain * path.alpha(t))
    torch.testing.assert_close(known.variance, variance_s - gain * covariance)
    torch.testing.assert_close(known.forward, variance_t - a**2 * variance_s)


@pytest.mark.parametrize(("steps", "low", "high"), [(1000, 1e-4, 0.02), (100, 1.5e-3, 0.2), (500, 2e-4, 0.05)])
def test_the_discrete_schedule_is_its_product_at_every_timestep(steps: int, low: float, high: float) -> None:
    path = DDPM(steps, low, high)
    product = torch.cumprod(1 - torch.linspace(low, high, steps, dtype=torch.float64), 0)
    t = path.time(torch.arange(steps))
    torch.testing.assert_close(path.alpha(t) ** 2, product, rtol=1e-8, atol=0)
    torch.testing.assert_close(path.sigma(t) ** 2, 1 - product, rtol=1e-8, atol=0)
    torch.testing.assert_close(path.timestep(t), torch.arange(steps, dtype=torch.float64))
    torch.testing.assert_close(path.alpha_dot(t), Interpolant.alpha_dot(path, t), rtol=1e-10, atol=0)
    assert t[-1] == 0
    assert path.alpha(torch.ones(())) == 1
    assert not torch.signbit(path.sigma(torch.ones(())))


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [(10, 0.06, 0.94), (2, 0.3, 0.7), (100, 0.006, 0.98), (1000, 5e-4, 0.999), (20, 0.03, 0.3)],
)
def test_few_large_betas_have_their_product_too(steps: int, low: float, high: float) -> None:
    path = DDPM(steps, low, high)
    logs = torch.log1p(-torch.linspace(low, high, steps, dtype=torch.float64)).cumsum(0)
    t = path.time(torch.arange(steps))
    torch.testing.assert_close(2 * path.alpha(t).log(), logs, rtol=0, atol=1e-10)
    torch.testing.assert_close(path.sigma(t) ** 2, -logs.expm1(), rtol=1e-10, atol=0)
    between = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(path.alpha_dot(between), Interpolant.alpha_dot(path, between), rtol=1e-9, atol=0)
    torch.testing.assert_close(path.sigma_dot(between), Interpolant.sigma_dot(path, between), rtol=1e-8, atol=1e-12)
    assert (path.alpha(between).log().diff() > 0).all()
    assert path.alpha(torch.ones(())) == 1


def test_the_discrete_schedule_has_shorter_chains() -> None:
    times = DDPM().times(250)
    assert len(times) == 251
    assert times[[0, -1]].tolist() == [0, 1]
    assert (times.diff() > 0).all()
    torch.testing.assert_close(DDPM().timestep(times[:-1]), DDPM().timestep(times[:-1]).round())
    torch.testing.assert_close(DDPM(50, 2e-3, 0.1).times(50), torch.linspace(0, 1, 51, dtype=torch.float64))
    for count in (1, 1001):
        with pytest.raises(ValueError, match=f"between 2 and 1000, got {count}"):
            DDPM().times(count)
    for wrong in (
        (1, 1e-4, 0.02),
        (1000, 0.02, 1e-4),
        (1000, 0.0, 0.02),
        (1, 0.01, 0.02),
        (10, 0.2, 0.97),
        (10, 1e-4, 1.0),
        (10, 1e-4, 0.5),
        (50, 1e-3, 0.1),
    ):
        with pytest.raises(ValueError, match="DDPM takes whole steps >= 2"):
            DDPM(*wrong)
