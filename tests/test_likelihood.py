"""Log-likelihoods by the change of variables."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from marks import slow_unless
from sitkit.backbones import SiT
from sitkit.interpolants import DDPM, GVP, VP, Interpolant, Linear
from sitkit.samplers import (
    Counted,
    Divergence,
    Exact,
    Hutchinson,
    adaptive,
    bits_per_dimension,
    dequantise,
    log_likelihood,
    standard_normal,
)
from worlds import PATHS, on_images, random_mixture

exactly = partial(log_likelihood, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        *((path, (3,)) for path in PATHS),
        *(slow_unless(isinstance(path, GVP), path, (1, 2, 2)) for path in PATHS),
    ],
    ids=repr,
)
def test_log_likelihood_is_the_mixtures(path: Interpolant, shape: tuple[int, ...]) -> None:
    world = random_mixture(3, math.prod(shape), seed=0)
    x = world.draw(5, torch.Generator().manual_seed(0))
    high = 1.0 if path.sigma_dot(torch.ones(())).isfinite() else 1 - 1e-5
    prior = lambda z: world.along(path, 0.0).log_prob(z.flatten(1))  # noqa: E731
    found = exactly(on_images(world.velocity(path)), x.reshape(-1, *shape), interval=(high, 0.0), prior=prior)
    torch.testing.assert_close(found.log_prob, world.log_prob(x), rtol=0, atol=1e-3)
    assert found.latent.shape == (5, *shape)
    if path.alpha(torch.zeros(())) == 0:
        torch.testing.assert_close(
            found.log_prob, exactly(on_images(world.velocity(path)), x.reshape(-1, *shape)).log_prob
        )


def test_the_normal_prior_of_a_path_that_keeps_some_data_is_nearly_right() -> None:
    world = random_mixture(3, 2, seed=0)
    x = world.draw(20, torch.Generator().manual_seed(0))
    for path in (VP(), DDPM()):
        found = exactly(world.velocity(path), x, interval=(1 - 1e-5, 0.0))
        assert 1e-6 < (found.log_prob - world.log_prob(x)).abs().max() < 0.05


def test_standard_normal_is_torchs() -> None:
    z = torch.randn(4, 2, 3, dtype=torch.float64)
    expected: Tensor = torch.distributions.Normal(0.0, 1.0).log_prob(z)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(standard_normal(z), expected.sum((1, 2)))


@pytest.mark.parametrize(
    ("size", "seed"),
    [slow_unless(size == 2 or (size == 8 and seed == 0), size, seed) for size in (2, 3, 8, 16) for seed in range(3)]
    + [(64, 0)],
)
@pytest.mark.parametrize("path", [Linear(), GVP()], ids=repr)
def test_fixed_probes_cost_hardly_more_steps_than_the_ode(path: Interpolant, size: int, seed: int) -> None:
    world = random_mixture(4, size, seed)
    x = world.draw(5, torch.Generator().manual_seed(seed))
    velocity = Counted(world.velocity(path))
    adaptive(velocity, x, 1.0, 0.0)
    alone = velocity.calls
    for divergence in (Hutchinson(seed=seed), Hutchinson(3), Exact()):
        velocity.calls = 0
        log_likelihood(velocity, x, divergence=divergence)
        assert velocity.calls <= 1.2 * alone


class Products(torch.autograd.Function):
    """The identity, which counts its vector-Jacobian products."""

    count = 0

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        Products.count += 1
        return gradients[0]


@pytest.mark.parametrize(("divergence", "probes"), [(Exact(), 4), (Hutchinson(), 1), (Hutchinson(3), 3)])
def test_a_right_hand_side_is_one_call_and_a_product_a_probe(divergence: Divergence, probes: int) -> None:
    world = random_mixture(2, 4, seed=0)
    velocity = Counted(lambda x, t: Products.apply(world.velocity(Linear())(x, t)))  # type: ignore[no-untyped-call]
    Products.count = 0
    log_likelihood(velocity, world.draw(3), divergence=divergence)
    assert Products.count == probes * velocity.calls


def test_random_signs_are_signs_keyed_by_sample_and_unbiased() -> None:
    x = torch.zeros(3000, 2, 2, dtype=torch.float64)
    vectors = Hutchinson(4, seed=1).vectors(x)
    assert vectors.shape == (4, 3000, 2, 2)
    assert torch.equal(vectors.abs(), torch.full_like(vectors, 0.5))
    products = torch.einsum("pbi,pbj->bij", vectors.flatten(2), vectors.flatten(2)).mean(0)
    torch.testing.assert_close(products, torch.eye(4, dtype=torch.float64), rtol=0, atol=0.06)
    chosen = torch.tensor([7, 2999, 5])
    assert torch.equal(Hutchinson(4, seed=1, index=chosen).vectors(x[:3]), vectors[:, chosen])
    assert not torch.equal(Hutchinson(4, seed=2).vectors(x), vectors)
    with pytest.raises(ValueError, match="probes must be"):
        Hutchinson(0)
    with pytest.raises(ValueError, match="3 sample numbers, and x has 3000 rows"):
        Hutchinson(index=chosen).vectors(x)


def test_estimates_have_the_right_mean() -> None:
    world = random_mixture(2, 4, seed=3)
    x = world.draw(1, torch.Generator().manual_seed(0)).expand(600, 4)
    estimates = log_likelihood(world.velocity(Linear()), x, divergence=Hutchinson(), rtol=1e-4, atol=1e-5).log_prob
    error = estimates.std() / 600**0.5
    assert error > 1e-3
    assert abs(float(estimates.mean() - world.log_prob(x[:1])[0])) < 4 * float(error) + 1e-3


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("divergence", [Exact(), Hutchinson(2)], ids=repr)
def test_it_works_wherever_gradients_are_on_or_off(context: Callable[[], object], divergence: Divergence) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 3))
    x = torch.randn(4, 3)
    field = lambda x, t: network(x) * torch.exp(t)[:, None]  # noqa: E731
    expected = log_likelihood(field, x, divergence=divergence)
    with context():  # type: ignore[attr-defined]
        found = log_likelihood(field, x.clone(), divergence=divergence)
    torch.testing.assert_close(found, expected)
    assert not found.log_prob.requires_grad
    assert not found.latent.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_transformers_have_likelihoods() -> None:
    torch.manual_seed(0)
    network = SiT(input_size=4, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(3, 1, 4, 4)
    exact = log_likelihood(network, x, divergence=Exact())
    x_64 = exactly(network.double(), x.double(), divergence=Exact())
    torch.testing.assert_close(exact.log_prob.double(), x_64.log_prob, rtol=0, atol=2e-3)
    torch.testing.assert_close(adaptive(network.float(), exact.latent, 0.0, 1.0), x, rtol=0, atol=1e-3)


def test_a_sample_that_stands_still_has_its_density_too() -> None:
    """At the mean of normal data the state never moves, so only the divergence determines the step size."""
    world = random_mixture(1, 2, seed=0)
    centred = type(world)(world.weights, 0 * world.means, world.covariances)
    x = torch.zeros(1, 2, dtype=torch.float64)
    found = log_likelihood(centred.velocity(Linear()), x)
    torch.testing.assert_close(found.log_prob, centred.log_prob(x), rtol=0, atol=2e-3)


def test_fields_that_cannot_be_differentiated_are_refused() -> None:
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match="must be differentiable by x"):
        log_likelihood(lambda x, t: x.detach(), x)
    latent = log_likelihood(lambda x, t: torch.ones_like(x) + 0 * x, x).latent
    torch.testing.assert_close(latent, x - 1)


def test_bits_are_those_of_a_histogram() -> None:
    """Random pixels whose entropy follows from a flat density over their range."""
    levels, generator = 16, torch.Generator().manual_seed(0)
    pixels = torch.randint(levels, (500, 3), generator=generator)
    x = dequantise(pixels, torch.rand(500, 3, generator=generator, dtype=torch.float64), levels=levels)
    edge = 1 / (levels - 1)
    assert x.min() >= -1 - edge
    assert x.max() <= 1 + edge
    flat = torch.full((500,), -3 * math.log(2 + 2 * edge), dtype=torch.float64)
    torch.testing.assert_close(bits_per_dimension(flat, 3, levels=levels), torch.full_like(flat, 4.0))
    assert torch.equal(bits_per_dimension(flat, 3), bits_per_dimension(flat, 3, levels=256))
    middles = dequantise(torch.arange(256)[None], torch.full((1, 256), 0.5))
    torch.testing.assert_close(middles, torch.arange(256)[None] / 127.5 - 1)  # what networks are trained on


def test_integer_pixels_are_dequantised_in_float32_or_wider() -> None:
    pixels, uniforms = torch.tensor([[0, 128, 255]], dtype=torch.uint8), torch.tensor([[0.25, 0.5, 0.75]])
    expected = torch.tensor([[-1 - 0.5 / 255, 2 * 128 / 255 - 1, 1 + 0.5 / 255]])
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        states = dequantise(pixels, uniforms.to(dtype))
        assert states.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(states.float(), expected, rtol=0, atol=1e-6)
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(ValueError, match="uniforms must be floating point"):
            dequantise(pixels, torch.ones(1, 3, dtype=dtype))


def test_bits_refuse_bad_arguments() -> None:
    refusals: list[Callable[[], Tensor]] = [
        lambda: dequantise(torch.zeros(2, 3), torch.zeros(2)),
        lambda: dequantise(torch.zeros(2), torch.zeros(2), levels=1),
        lambda: bits_per_dimension(torch.zeros(2), 0),
        lambda: bits_per_dimension(torch.zeros(2), 3, levels=1),
    ]
    for call in refusals:
        with pytest.raises(ValueError, match="levels >= 2"):
            call()


def test_a_demanding_row_is_served_among_a_thousand_others() -> None:
    world = random_mixture(3, 2, seed=7)
    hard = world.draw(1, torch.Generator().manual_seed(0))
    easy = torch.full((1000, 2), 30.0, dtype=torch.float64)
    alone, among = (log_likelihood(world.velocity(Linear()), x).log_prob[0] for x in (hard, torch.cat([hard, easy])))
    torch.testing.assert_close(alone, world.log_prob(hard)[0], rtol=0, atol=1e-3)
    torch.testing.assert_close(among, world.log_prob(hard)[0], rtol=0, atol=1e-3)


def test_a_demanding_density_is_served_among_a_thousand_others() -> None:
    """One row stays where the field oscillates, and the other rows are where the field is zero."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x.abs() < 1, 20 * torch.cos(30 * t)[:, None] * x, 0 * x)

    still, mates = torch.zeros(1, 2, dtype=torch.float64), torch.full((1000, 2), 10.0, dtype=torch.float64)
    exact = float(standard_normal(still)[0]) - 2 * 20 * math.sin(30) / 30
    for x in (still, torch.cat([still, mates])):
        assert float(log_likelihood(field, x).log_prob[0]) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("solve", [adaptive, log_likelihood])
def test_tolerances_are_relative_and_absolute(solve: Callable[..., object]) -> None:
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)  # divergence-free
    field = Counted(lambda x, t: x @ turn * (20 * torch.cos(20 * t))[:, None])
    ends = (1.0, 0.0) if solve is adaptive else ()
    calls = {}
    for rtol, atol in ((1e-9, 1.0), (1.0, 1e-9), (1e-9, 1e-9)):
        field.calls = 0
        solve(field, torch.full((2, 2), 1e3, dtype=torch.float64), *ends, rtol=rtol, atol=atol)
        calls[rtol, atol] = field.calls
    assert calls[1.0, 1e-9] < calls[1e-9, 1.0] < calls[1e-9, 1e-9]


def test_networks_of_another_precision_and_learnt_constants_have_likelihoods() -> None:
    x = torch.randn(4, 3)
    offset = torch.nn.Parameter(torch.full((3,), 0.5))
    constant = log_likelihood(lambda x, t: offset.expand(x.shape), x)
    torch.testing.assert_close(constant.latent, x - 0.5)
    torch.testing.assert_close(constant.log_prob, standard_normal(x - 0.5))
    for divergence in (Exact(), Hutchinson()):
        single = log_likelihood(lambda x, t: x * t[:, None], x, divergence=divergence)
        double = log_likelihood(lambda x, t: x.double() * t[:, None], x, divergence=divergence)
        half = log_likelihood(lambda x, t: (x * t[:, None]).bfloat16(), x, divergence=divergence, rtol=1e-2, atol=1e-2)
        assert single.log_prob.dtype == double.log_prob.dtype == half.log_prob.dtype == torch.float32
        torch.testing.assert_close(double, single, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(half, single, rtol=0.1, atol=0.1)
    learnt = log_likelihood(lambda x, t: x, x, prior=lambda z: standard_normal(z) * offset[0])
    assert not learnt.log_prob.requires_grad


def test_methods_with_steps_of_one_length_give_likelihoods_too() -> None:
    world = random_mixture(3, 2, seed=0)
    x = world.draw(5, torch.Generator().manual_seed(0))
    found = log_likelihood(world.velocity(Linear()), x, method="rk4")
    torch.testing.assert_close(found.log_prob, world.log_prob(x), rtol=0, atol=1e-3)


def test_probes_differ_from_one_another_and_start_from_seed_zero() -> None:
    x = torch.zeros(50, 4)
    first, second = Hutchinson(2).vectors(x)
    assert not torch.equal(first, second)
    assert torch.equal(Hutchinson().vectors(x)[0], first.sign())
    assert torch.equal(Hutchinson(2, seed=0).vectors(x)[0], first)
    with pytest.raises(ValueError, match="60 sample numbers, and x has 50 rows"):
        Hutchinson(index=torch.arange(60)).vectors(x)
