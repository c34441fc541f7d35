"""Laws of paths."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sitkit.interpolants import VP, Interpolant, Linear, check
from worlds import PATHS, RING, Mixture, Quadratic

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
        return {"ends": 0.9 * t, "batch": t * t.max() / 0.99, "shape": t[None]}.get(self.law, t)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        return (1 - t) * (1 - 4 * t * (1 - t) * 1.2) if self.law == "positive" else 1 - t

    def alpha_dot(self, t: torch.Tensor) -> torch.Tensor:
        return torch.full_like(t, 1.1 if self.law == "derivative" else 1.0)

    def sigma_dot(self, t: torch.Tensor) -> torch.Tensor:
        return -torch.ones_like(t)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        ("ends", "alpha\\(1\\) = 1"),
        ("batch", "each time alone"),
        ("shape", "shape"),
        ("positive", "sigma are positive"),
        ("derivative", "alpha_dot is its derivative"),
    ],
)
def test_check_names_the_law_that_is_broken(law: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(Broken(law))


@given(paths, shapes, dtypes, st.integers(0, 1000), st.lists(times, min_size=5, max_size=5))
def test_all_six_conversions_read_back_what_was_mixed(path, shape, dtype, seed, t) -> None:  # type: ignore[no-untyped-def]
    x, eps = draw(shape, dtype, seed)
    t = torch.tensor(t[: shape[0]], dtype=dtype)
    x_t, velocity = path.mix(x, eps, t), path.velocity(x, eps, t)
    score = -eps / path.sigma(t).reshape(-1, *[1] * (len(shape) - 1))
    near = 2e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(path.noise_from_velocity(velocity, x_t, t), eps, rtol=near, atol=near)
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, t), score, rtol=near, atol=near)
    torch.testing.assert_close(path.data_from_velocity(velocity, x_t, t), x, rtol=near, atol=near)
    if dtype == torch.float64:  # in float32 the way back loses what 1 / alpha and 1 / sigma multiply
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


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_given_derivatives_are_those_of_forward_mode(path: Interpolant) -> None:
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    torch.testing.assert_close(path.alpha_dot(t), Interpolant.alpha_dot(path, t))
    torch.testing.assert_close(path.sigma_dot(t), Interpolant.sigma_dot(path, t))
    path.alpha_dot(torch.tensor(0.5).expand(4))  # a view, which forward mode by itself refuses


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize(
    "world", [RING, Mixture(torch.randn(3, 1, 2, 2, dtype=torch.float64), 0.5)], ids=["points", "images"]
)
def test_score_of_the_exact_velocity_is_the_gradient_of_the_log_density(path: Interpolant, world: Mixture) -> None:
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    x = world.draw(64, generator)
    x_t = path.mix(x, torch.randn(x.shape, generator=generator, dtype=torch.float64), t)
    velocity = world.velocity(path)(x_t, t)
    score = world.score(path)(x_t, t)
    torch.testing.assert_close(path.score_from_velocity(velocity, x_t, t), score, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(path.velocity_from_score(score, x_t, t), velocity, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", [p for p in PATHS if not isinstance(p, VP)], ids=repr)
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


def test_double_times_leave_single_states_single() -> None:
    x, eps = draw((4, 2), torch.float32, 0)
    assert Quadratic().score_from_velocity(x, eps, torch.rand(4, dtype=torch.float64)).dtype == torch.float32


def test_vp_refuses_a_falling_beta() -> None:
    with pytest.raises(ValueError, match="beta_min <= beta_max"):
        VP(beta_min=3.0, beta_max=2.0)


def test_conversions_compile_whole() -> None:
    x, eps = draw((4, 2), torch.float32, 0)
    t = torch.rand(4)
    for path in PATHS:
        torch.compiler.reset()
        compiled = torch.compile(path.score_from_velocity, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x, eps, t), path.score_from_velocity(x, eps, t))
