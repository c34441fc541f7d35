"""The networks: equal to the official ones, and bad arguments are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from sitkit.backbones import MLP, SiT, sit_b, sit_l, sit_s, sit_xl
from sitkit.backbones.embeddings import TimeEmbedding
from sitkit.samplers import ClassifierFree

GOLDEN = Path(__file__).parent / "golden"
SMALL: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 5,
}


def official(name: str) -> tuple[SiT, dict[str, Tensor]]:
    arrays = np.load(GOLDEN / f"backbone-{name}.npz")
    network = SiT(**json.loads(str(arrays["config"])))
    network.load_state_dict({key[6:]: torch.from_numpy(arrays[key]) for key in arrays if key.startswith("state.")})
    return network, {key: torch.from_numpy(arrays[key]) for key in arrays if arrays[key].dtype.kind in "fi"}


@pytest.mark.parametrize("name", ["velocity", "plain"])
@torch.no_grad()
def test_outputs_are_those_of_the_official_network(name: str) -> None:
    network, golden = official(name)
    x, t, y = golden["x"], golden["t"], golden["y"]
    torch.testing.assert_close(network(x, t, y), golden["output"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(x, t), golden["output_null"], rtol=1e-5, atol=1e-5)
    guided = ClassifierFree(network, y, network.num_classes, 1.8, channels=3)(x, t)
    torch.testing.assert_close(guided, golden["output_cfg_first3"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["velocity", "plain"])
def test_positions_are_those_of_the_official_network(name: str) -> None:
    _network, golden = official(name)
    fresh = SiT(**json.loads(str(np.load(GOLDEN / f"backbone-{name}.npz")["config"])))
    torch.testing.assert_close(fresh.pos_embed, golden["state.pos_embed"])


@pytest.mark.parametrize(("build", "millions"), [(sit_s, 32.96), (sit_b, 130.51), (sit_l, 458.10), (sit_xl, 675.13)])
def test_published_sizes(build, millions: float) -> None:  # type: ignore[no-untyped-def]
    with torch.device("meta"):
        network = build(input_size=32, in_channels=4, num_classes=1000, learn_sigma=True)
        plain = build(8, input_size=32, in_channels=4, num_classes=1000)
    heads = {384: 6, 768: 12, 1024: 16, 1152: 16}
    for one in (network, plain):
        assert {block.attn.num_heads for block in one.blocks} == {heads[one.pos_embed.shape[2]]}
    assert plain.final_layer.linear.out_features == 8 * 8 * 4
    assert network.final_layer.linear.out_features == 2 * 2 * 4 * 2
    counted = sum(p.numel() for p in network.parameters()) + network.pos_embed.numel()
    assert counted / 1e6 == pytest.approx(millions, abs=0.005)


def perturbed(**changes: object) -> SiT:
    """Return a small network without zero weights, so that every layer matters."""
    torch.manual_seed(0)
    network = SiT(**(SMALL | changes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@torch.no_grad()
def test_initial_weights_are_distributed_as_the_official_ones() -> None:
    torch.manual_seed(0)
    network = SiT(**(SMALL | {"hidden_size": 96, "num_classes": 99}))
    for weight in (network.t_embedder.mlp[0].weight, network.y_embedder.embedding_table.weight):
        assert isinstance(weight, Tensor)
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
        assert weight.abs().max() > 0.06  # normal
    qkv, patches = network.blocks[0].attn.qkv.weight, network.x_embedder.proj.weight  # type: ignore[union-attr]
    for weight, sizes in ((qkv, 96 + 3 * 96), (patches, 3 * 2 * 2 + 96)):
        bound = (6 / sizes) ** 0.5  # Xavier's, of the linear map
        assert isinstance(weight, Tensor)
        assert 0.97 * bound < weight.abs().max() <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert all(not value.any() for name, value in network.named_parameters() if name.endswith("bias"))
    zeros = [value for name, value in network.named_parameters() if "adaLN" in name or name.startswith("final_layer")]
    assert len(zeros) == 2 * 2 + 4
    assert not any(value.any() for value in zeros)


def test_weights_of_half_precision_take_times_of_single() -> None:
    x, t = torch.randn(2, 3, 8, 8).bfloat16(), torch.rand(2)
    assert perturbed().bfloat16()(x, t).dtype == torch.bfloat16
    assert MLP(3).bfloat16()(x[:, :, 0, 0], t).dtype == torch.bfloat16


def test_the_output_starts_at_zero() -> None:
    assert SiT(**SMALL).full(torch.randn(2, 3, 8, 8), torch.rand(2)).shape == (2, 3, 8, 8)
    network = SiT(**SMALL)
    assert torch.equal(network(torch.randn(2, 3, 8, 8), torch.rand(2)), torch.zeros(2, 3, 8, 8))


@torch.no_grad()
def test_rows_are_independent_and_every_input_matters() -> None:
    network = perturbed()
    x, t, y = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 1, 2])
    out = network(x, t, y)
    for k in range(3):
        torch.testing.assert_close(network(x[k : k + 1], t[k : k + 1], y[k : k + 1])[0], out[k], rtol=1e-5, atol=1e-5)
    for other in (network(x.flip(0), t, y), network(x, t.flip(0), y), network(x, t, y.flip(0)), network(x, t)):
        assert (other - out).abs().amax((1, 2, 3))[0] > 1e-4
    assert torch.equal(network(x, t), network(x, t, torch.full((3,), 5)))


@torch.no_grad()
def test_every_patch_sees_every_other_and_knows_its_place() -> None:
    network = perturbed()
    x, t = torch.randn(1, 3, 8, 8), torch.rand(1)
    touched = x.clone()
    touched[..., 0, 0] += 1
    assert ((network(touched, t) - network(x, t)).abs() > 0).all()
    moved = network(x.roll(2, -1), t).roll(-2, -1)
    assert (moved - network(x, t)).abs().max() > 1e-3


def test_the_output_is_no_view_of_another_tensor() -> None:
    """FSDP2 warns about modules that return views."""
    network = SiT(**SMALL).requires_grad_()
    assert network(torch.randn(2, 3, 8, 8), torch.rand(2), torch.tensor([0, 5]))._base is None


def test_learn_sigma_doubles_the_output_of_full_and_not_of_call() -> None:
    network = perturbed(learn_sigma=True)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    assert network.full(x, t).shape == (2, 6, 8, 8)
    assert torch.equal(network(x, t), network.full(x, t)[:, :3])


def test_times_stay_apart_under_autocast() -> None:
    network = perturbed(time_scale=1000.0)
    t = torch.tensor([0.9990, 0.9993])  # one number in bfloat16
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        first, second = network.t_embedder(t)
    assert (first - second).abs().max() > 1e-2
    with torch.no_grad():
        for half in (torch.tensor([0.3, 0.7]).half(), torch.tensor([0.3, 0.7]).bfloat16()):
            assert torch.equal(network.t_embedder(half), network.t_embedder(half.float()))


def test_published_sizes_take_a_scale_of_time() -> None:
    network = sit_s(8, input_size=8, in_channels=1, num_classes=3, time_scale=1000.0)
    assert network.t_embedder.frequencies[0] == 1000
    assert (network.in_channels, network.num_classes, network.input_size) == (1, 3, 8)
    assert len(network.y_embedder.embedding_table.weight) == 4
    names = [getattr(build, "__name__", "") for build in (sit_s, sit_b, sit_l, sit_xl)]
    assert names == ["sit_s", "sit_b", "sit_l", "sit_xl"]


def test_times_are_embedded_as_in_the_official_network_unless_scaled() -> None:
    t, one, thousand = torch.tensor([0.3]), perturbed(), perturbed(time_scale=1000.0)
    assert torch.equal(one.t_embedder.frequencies[:1], torch.ones(1))
    with torch.no_grad():
        assert torch.equal(TimeEmbedding(8).frequencies, one.t_embedder.frequencies)
        torch.testing.assert_close(thousand.t_embedder(t / 1000), one.t_embedder(t))


def test_an_unconditional_network_takes_no_labels() -> None:
    network = perturbed(num_classes=0)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    assert network(x, t).shape == x.shape
    with pytest.raises(ValueError, match="unconditional"):
        network(x, t, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize(
    ("x", "t", "y", "message"),
    [
        ((2, 3, 8, 4), (2,), (2,), "takes x of shape"),
        ((2, 1, 8, 8), (2,), (2,), "takes x of shape"),
        ((2, 3, 8, 8), (1,), (2,), "t must have shape"),
        ((2, 3, 8, 8), (2, 1), (2,), "t must have shape"),
        ((2, 3, 8, 8), (2,), (1,), "y must have shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x, t, y, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        SiT(**SMALL)(torch.zeros(x), torch.zeros(t), torch.zeros(y, dtype=torch.long))


@pytest.mark.parametrize(
    "changes", [{"patch_size": 3}, {"num_heads": 5}, {"hidden_size": 34}, {"depth": 0}, {"num_classes": -1}]
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"divi|positive"):
        SiT(**(SMALL | changes))


def test_a_network_for_points() -> None:
    torch.manual_seed(0)
    network = MLP(features=2)
    x, t = torch.randn(5, 2), torch.rand(5)
    assert torch.equal(network(x, t), torch.zeros(5, 2))
    torch.testing.assert_close(network.frequencies, torch.pi * 2.0 ** torch.arange(8))
    with torch.no_grad():
        network.out.weight.normal_()
    assert (network(x, t) - network(x, 1 - t)).abs().max() > 1e-2
    assert network.double()(x.double(), t.double()).dtype == torch.float64
    for bad in ((torch.randn(5, 3), t), (torch.randn(5, 2, 2), t), (x, torch.rand(1)), (x, t, torch.zeros(5))):
        with pytest.raises(ValueError, match=r"takes x|t must|without y"):
            network(*bad)
    for wrong in ({"features": 0}, {"features": 2, "hidden_size": 0}, {"features": 2, "depth": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            MLP(**wrong)


def test_the_network_for_points_is_its_formula() -> None:
    network, (x, t) = MLP(2, hidden_size=8, depth=2), (torch.randn(5, 2), torch.rand(5))
    with torch.no_grad():
        network.out.weight.normal_()
        angles = t[:, None] * torch.pi * 2.0 ** torch.arange(8)
        h = network.embed(x) + network.times(torch.cat([angles.sin(), angles.cos()], 1))
        for k in (0, 2):
            h = h + network.layers[k + 1](silu(network.layers[k](silu(h))))
        torch.testing.assert_close(network(x, t), network.out(silu(h)))
    usual = MLP(2)
    assert (usual.embed.out_features, len(usual.layers)) == (256, 6)
