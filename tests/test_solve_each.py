"""The solver with a time and a step size for each sample."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchdiffeq
from torch import Tensor

from sitkit.backbones import Mixture
from sitkit.interpolants import GVP, Interpolant, Linear
from sitkit.samplers import Conditional, Counted, adaptive, solve_each
from worlds import PATHS, RING, Field, Gaussian, doubles, on_images, random_mixture, slope

WORLD = Gaussian(mean=1.5, std=0.5)


class Recorded:
    """A field with an oscillation frequency for each label, which records times and labels of its calls."""

    def __init__(self) -> None:
        self.asked: dict[int, list[float]] = defaultdict(list)

    def __call__(self, x: Tensor, t: Tensor, /, *, y: Tensor) -> Tensor:
        assert t.shape == x.shape[:1] == y.shape
        for label, time in zip(y.tolist(), t.tolist(), strict=True):
            self.asked[label].append(time)
        rate = y.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return rate * torch.cos(rate * t.reshape(rate.shape)) * x


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_both_ways_to_the_tolerance(path: Interpolant) -> None:
    x = doubles(-1.0, 0.0, 2.0)[:, None]
    velocity = WORLD.velocity(path)
    there = solve_each(velocity, x, 0.05, 0.95)
    torch.testing.assert_close(there, WORLD.flow(path, x, *doubles(0.05, 0.95)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(solve_each(velocity, there, 0.95, 0.05), x, rtol=5e-4, atol=5e-4)


def test_the_error_is_proportional_to_the_tolerance_and_the_cost_to_its_fifth_root() -> None:
    x, field = normals(16, 1), Counted(WORLD.velocity(GVP()))
    exact = WORLD.flow(GVP(), x, *doubles(0.0, 1.0))
    tolerances, errors, costs = [10.0**-k for k in range(4, 12)], [], []
    for tolerance in tolerances:
        field.rows = 0
        errors.append(
            float((solve_each(Conditional(field), x, 0.0, 1.0, rtol=tolerance, atol=tolerance) - exact).norm())
        )
        costs.append(field.rows)
    assert slope(tolerances, errors) == pytest.approx(-1, abs=0.1)
    assert slope(tolerances[3:], [float(cost) for cost in costs[3:]]) == pytest.approx(1 / 5, abs=0.03)
    assert max(error / tolerance for error, tolerance in zip(errors, tolerances, strict=True)) < 10


def test_one_step_is_of_order_five() -> None:
    x, field = (
        doubles(0.3, 1.1)[None],
        Counted(lambda x, t: torch.sin(3 * x.flip(1) + t[:, None]) + x * t[:, None] ** 2),
    )
    lengths, errors = [0.005, 0.008, 0.0125, 0.02], []
    for length in lengths:
        field.calls = 0
        once = solve_each(field, x, 0.2, 0.2 + length, rtol=1.0, atol=1e-9)
        assert field.calls == 8  # one that guesses the step, and six and the first for it
        exact = solve_each(field, x, 0.2, 0.2 + length, rtol=1e-13, atol=1e-13)
        errors.append(float((once - exact).norm()))
    assert slope(lengths, errors) == pytest.approx(-6, abs=0.35)


def test_steps_settle_where_the_control_is_at_rest() -> None:
    """Of dx/dt = x, a step of h misses by E(h) (Hairer and Wanner II, IV.2), which .9 error^(.4/5 - .7/5) = 1 fixes."""
    asked: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        asked.extend(t.tolist())
        return x

    solve_each(field, torch.ones(1, 1, dtype=torch.float64), 0.0, 20.0, rtol=1e-6, atol=0.0)
    ends = doubles(*asked[7::6])
    h = ends.diff()[-10:-1]
    assert (h > 0).all()
    order_5 = sum(h**n * c for n, c in enumerate([1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 600]))
    error = (97 / 120000 * h**5 - 13 / 40000 * h**6 - 1 / -24000 * h**7).abs() / order_5 / 1e-6
    torch.testing.assert_close(error, torch.full_like(error, 0.9 ** (5 / 0.3)), rtol=0.05, atol=0)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_a_sample_does_not_depend_on_its_batch_mates(ends: tuple[float, float]) -> None:
    x, y = normals(7, 3), torch.tensor([0, 1, 40, 2, 20, 300, 3])
    dropping, frozen = Recorded(), Recorded()
    together = solve_each(Conditional(dropping, y), x, *ends)
    staying = solve_each(partial(frozen, y=y), x, *ends)
    torch.testing.assert_close(staying, together, rtol=0, atol=1e-12)
    longest = max(map(len, dropping.asked.values()))
    for i, label in enumerate(y.tolist()):
        alone = Recorded()
        reached = solve_each(Conditional(alone, y[i : i + 1]), x[i : i + 1], *ends)
        assert alone.asked[label] == dropping.asked[label]
        torch.testing.assert_close(reached[0], together[i], rtol=0, atol=1e-12)
        steps = len(alone.asked[label])
        assert frozen.asked[label] == alone.asked[label] + [ends[1]] * (longest - steps)
    assert len(dropping.asked[0]) < len(dropping.asked[40]) < len(dropping.asked[300])


def test_only_unfinished_rows_are_evaluated() -> None:
    x, y = normals(7, 3), torch.tensor([0, 1, 40, 2, 20, 100, 3])
    network = Counted(Recorded())
    alone = []
    for i in range(7):
        network.rows = 0
        solve_each(Conditional(network, y[i : i + 1]), x[i : i + 1], 0.0, 1.0)
        alone.append(network.rows)
    network.rows = network.calls = 0
    solve_each(Conditional(network, y), x, 0.0, 1.0)
    assert (network.calls, network.rows) == (max(alone), sum(alone))
    outside = Counted(Conditional(network, y))  # whose `rows` is a number
    network.rows = network.calls = 0
    solve_each(outside, x, 0.0, 1.0)
    assert (network.calls, network.rows) == (max(alone), 7 * max(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "ends", [(0.0, 1.0), (1.0, 0.0), (0.3, 0.8), (0.8, 0.3), (0.2, 0.7), (-0.2, -0.7), (0.1, 1e-9)]
)
@pytest.mark.parametrize("speed", [1.0, 1e-9, 0.0])
def test_the_field_is_asked_at_both_ends_and_never_beyond(
    ends: tuple[float, float], speed: float, dtype: torch.dtype
) -> None:
    asked: list[float] = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1]
        assert t.dtype == dtype
        asked.extend(t.tolist())
        return RING.velocity(Linear())(x, t.abs()).to(x.dtype) * speed

    solve_each(velocity, normals(4, 2).to(dtype), *ends)
    assert min(asked) >= min(ends)
    assert max(asked) <= max(ends)
    assert (asked[0], asked[-1]) == pytest.approx(ends, rel=2 * torch.finfo(dtype).eps, abs=1e-12)
    if dtype == torch.float64:
        assert (asked[0], asked[-1]) == ends


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_states_are_asked_for_where_they_are_at_the_time(ends: tuple[float, float]) -> None:
    def constant(x: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x[:, 0], 1 + 1e-3 * (t - ends[0]))
        return torch.full_like(x, 1e-3)

    solve_each(constant, torch.ones(2, 1, dtype=torch.float64), *ends)


@pytest.mark.parametrize("tolerances", [{"rtol": 1e-6, "atol": 0.0}, {"rtol": 0.0, "atol": 1e-6}])
def test_steps_do_not_depend_on_the_size_of_a_row(tolerances: dict[str, float]) -> None:
    y, calls = torch.tensor([3, 9]), []
    for size in (1, 64):
        field = Counted(Recorded())
        solve_each(Conditional(field, y), torch.ones(2, size, dtype=torch.float64), 0.0, 1.0, **tolerances)  # type: ignore[arg-type]
        calls.append(field.calls)
    assert calls[0] == calls[1]


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_images_as_wide_as_the_batch_and_their_inversion(path: Interpolant) -> None:
    x = RING.draw(2, torch.Generator().manual_seed(0)).float().reshape(2, 1, 1, 2)
    latent = solve_each(on_images(RING.velocity(path)), x, 1.0, 0.0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        latent.flatten(1), solve_each(RING.velocity(path), x.flatten(1), 1.0, 0.0), rtol=1e-3, atol=1e-3
    )
    back = solve_each(on_images(RING.velocity(path)), latent, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)
    x, y = normals(4, 4, 4, 4), torch.tensor([1, 9, 3, 30])
    exact = x * torch.exp(torch.sin(y.double()).reshape(-1, 1, 1, 1))
    torch.testing.assert_close(solve_each(Conditional(Recorded(), y), x, 0.0, 1.0), exact, rtol=1e-3, atol=1e-4)


def rows_at_error(solve: Callable[[Field, Tensor, float], Tensor], world: Mixture, size: int, at: Tensor) -> Tensor:
    """Return the rows of a solver at given logarithms of the mean error, interpolated between its tolerances."""
    x, field = normals(48, size), Counted(world.velocity(Linear()))
    exact = adaptive(field, x, 0.0, 1.0, method="dopri8", rtol=1e-10, atol=1e-10)
    known = []
    for k in range(2, 9):
        field.rows = 0
        error = (solve(field, x, 10.0**-k) - exact).norm(dim=1).mean().log()
        known.append((float(error), field.rows))
    errors, rows = doubles(*(e for e, _ in known)), doubles(*(r for _, r in known)).log()
    place = torch.searchsorted(-errors, -at).clamp(1, len(errors) - 1)
    share = (at - errors[place - 1]) / (errors[place] - errors[place - 1])
    assert (errors.diff() < 0).all()
    assert ((share >= -1e-9) & (share <= 1 + 1e-9)).all()
    return torch.lerp(rows[place - 1], rows[place], share).exp()


@pytest.mark.parametrize(("world", "size"), [(RING, 2), (random_mixture(5, 3, 0), 3)], ids=["ring", "mixture"])
def test_it_takes_fewer_rows_than_torchdiffeq_at_equal_error(world: Mixture, size: int) -> None:
    def plain(field: Field, x: Tensor, tolerance: float) -> Tensor:
        states: Tensor = torchdiffeq.odeint(
            lambda t, x: field(x, t.expand(len(x))),
            x,
            doubles(0.0, 1.0),
            method="dopri5",
            rtol=tolerance,
            atol=tolerance,
        )
        return states[-1]

    at = doubles(1e-3, 1e-4, 1e-5, 1e-6).log()
    own = rows_at_error(lambda f, x, tol: solve_each(Conditional(f), x, 0.0, 1.0, rtol=tol, atol=tol), world, size, at)
    by_row = rows_at_error(lambda f, x, tol: adaptive(f, x, 0.0, 1.0, rtol=tol, atol=tol), world, size, at)
    by_batch = rows_at_error(plain, world, size, at)
    assert (own <= by_row).all()
    assert (own <= by_batch).all()


def test_states_are_carried_in_single_precision_or_more_and_autocast_does_not_round_them() -> None:
    def field(x: Tensor, t: Tensor) -> Tensor:
        return x * torch.cos(9 * t)[:, None] * torch.ones((), requires_grad=True)

    reached = solve_each(field, torch.ones(3, 2, dtype=torch.bfloat16), 0.0, 1.0)
    assert reached.dtype == torch.bfloat16
    assert not reached.requires_grad
    assert solve_each(field, torch.ones(3, 2, dtype=torch.float64), 0.0, 1.0).dtype == torch.float64
    alone = solve_each(field, torch.ones(3, 2), 0.0, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(solve_each(field, torch.ones(3, 2), 0.0, 1.0), alone)


def test_empty_batches_scalar_rows_and_states_at_rest() -> None:
    assert solve_each(Conditional(WORLD.velocity(Linear())), torch.zeros(0, 1), 0.0, 1.0).shape == (0, 1)
    x = doubles(1.0, 2.0)
    torch.testing.assert_close(solve_each(lambda x, t: -x, x, 0.0, 1.0), x / torch.e, rtol=1e-4, atol=0)
    given = x.clone()
    assert torch.equal(solve_each(lambda x, t: 0 * x, doubles(0.0, 2.0), 0.0, 1.0, atol=0.0), doubles(0.0, 2.0))
    assert torch.equal(x, given)


def test_a_step_that_gives_nan_is_repeated_with_a_shorter_length() -> None:
    met = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        met.append(bool((x < 0).any()))
        return -x.sqrt()

    x = doubles(1.0, 4.0)[:, None]
    torch.testing.assert_close(
        solve_each(field, x, 0.0, 1.999, rtol=0.1, atol=1e-3), (x.sqrt() - 1.999 / 2) ** 2, atol=0.05, rtol=0
    )
    assert any(met)


def test_unsolvable_problems_are_refused() -> None:
    x = normals(3, 2)
    for t, s, rtol, atol in (
        (0.5, 0.5, 1e-5, 1e-5),
        (0.0, float("nan"), 1e-5, 1e-5),
        (0.0, float("inf"), 1e-5, 1e-5),
        (0.0, 1.0, -1e-5, 1e-5),
        (0.0, 1.0, 1e-5, -1e-5),
        (0.0, 1.0, 0.0, 0.0),
        (0.0, 1.0, float("nan"), 1e-5),
    ):
        with pytest.raises(ValueError, match="t != s, rtol >= 0 and atol >= 0"):
            solve_each(RING.velocity(Linear()), x, t, s, rtol=rtol, atol=atol)
    infinite: list[tuple[Field, str]] = [
        (lambda x, t: x / (0.5 - t[:, None]).clamp(min=0), r"t = 0\.5, "),
        (lambda x, t: x / (1 - t[:, None]), "t = 1, "),
        (lambda x, t: x * torch.where(t < 0.25, 1, torch.nan)[:, None], r"t = 0\.25, "),
        (lambda x, t: x * torch.inf, "t = 0, "),
    ]
    for field, place in infinite:
        with pytest.raises(ValueError, match=place + ".* stay away from an end at which the velocity is infinite"):
            solve_each(field, x, 0.0, 1.0)
