"""Estimates of a dry run: published sizes, and the bytes of real tensors."""

import copy
import re
from functools import cache

import pytest
import torch
from torch import Tensor

from sitkit.recipes.experiment.packaged import presets
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.network.ema import EMAWeights
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.trust import Trust
from sitkit.recipes.training.cost_estimate import GIB, activations, describe, forward_macs, memory
from sitkit.recipes.training.data_summary import STATED, DataSummary, summary_of

OFFICIAL = {
    "sit_s": (32, 32.96e6, 6.06e9),
    "sit_b": (32, 130.51e6, 23.01e9),
    "sit_l": (32, 458.10e6, 80.70e9),
    "sit_xl": (32, 675.13e6, 118.62e9),
    "sit_xl at 512": (64, None, 524.54e9),
}
"""The official networks at patch 2: side of the latents, parameters with fixed positions, multiply-accumulates."""
POSITIONS = {"sit_s": 384, "sit_b": 768, "sit_l": 1024, "sit_xl": 1152}
SMALL = ["backbone.hidden_size=32", "backbone.depth=3", "backbone.num_heads=2", "train.batch=12"]
DIGITS = DataSummary((1, 8, 8), 10, 898)


def of_size(name: str, *settings: str) -> Recipe:
    return read_recipe("digits", [f"backbone.kind={name}", "backbone.learn_sigma=true", *settings])


def small(*settings: str) -> Recipe:
    return read_recipe("digits", [*SMALL, *settings])


@pytest.mark.parametrize("name", OFFICIAL)
def test_work_and_parameters_are_the_published_ones(name: str) -> None:
    side, parameters, macs = OFFICIAL[name]
    kind = name.split(maxsplit=1)[0]
    recipe = of_size(kind)
    assert forward_macs(recipe, (4, side, side), 1000) == pytest.approx(macs, rel=2e-3)
    if parameters:
        told = re.search(r"parameters +([\d,]+)", describe(recipe, DataSummary((4, side, side), 1000, 10)))
        assert told
        positions = POSITIONS[kind] * (side // 2) ** 2
        assert int(told[1].replace(",", "")) + positions == pytest.approx(parameters, abs=0.006e6)


@cache
def trained(settings: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes of the tensors of a real step, and those that were estimated."""
    recipe = small(*settings)
    network = recipe.backbone.build(input_size=8, in_channels=1, num_classes=10)
    averages = EMAWeights.of(recipe.ema, lambda: copy.deepcopy(network))
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    x, t, y = torch.randn(12, 1, 8, 8), torch.rand(12), torch.arange(12) % 10
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    stored: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage().data_ptr()
        if storage not in own:
            stored[storage] = tensor
        return tensor

    half = recipe.train.precision == "bf16"
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(x, t, y)
        loss = output.float().square().mean()
    loss.backward()
    optimizer.step()
    tensors = {
        "weights": [*network.parameters(), *network.buffers()],
        "gradients": [p.grad for p in network.parameters()],
        "moments of AdamW": [v for state in optimizer.state.values() for v in state.values()],
        "EMA (4)": [v for m in averages.modules.values() for v in (*m.parameters(), *m.buffers())],
    }
    real = {name: sum(tensor.nbytes for tensor in held) for name, held in tensors.items()}
    real["activations"] = sum(tensor.untyped_storage().nbytes() for tensor in stored.values())
    return real, memory(recipe, DIGITS)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_memory_is_that_of_the_tensors_of_a_step(precision: str) -> None:
    real, estimated = trained((f"train.precision={precision}", "ema.more=[0.9]", "ema.widths=[0.05,0.1]"))
    for part in ("weights", "gradients", "moments of AdamW", "EMA (4)"):
        assert estimated[part] == real[part], part
    assert estimated["activations"] == pytest.approx(real["activations"], rel=0.01)  # the loss is a little of it
    assert "gathered weights" not in estimated


def test_activations_grow_with_the_batch_and_micro_batches_shrink_them() -> None:
    recipe = small()
    one, two, four = (activations(recipe, (1, 8, 8), 10, batch) for batch in (1, 2, 4))
    assert four - two == 2 * (two - one)
    halves = memory(small("compute.gradient_accumulation=2"), DIGITS)
    assert halves["activations"] == activations(recipe, (1, 8, 8), 10, 6)
    assert memory(recipe, DIGITS, processes=4)["activations"] == activations(recipe, (1, 8, 8), 10, 3)


def test_recomputed_activations_are_one_block_and_the_inputs_of_all() -> None:
    def cost(depth: int, checkpointing: str) -> int:
        recipe = small(f"backbone.depth={depth}", f"compute.activation_checkpointing={checkpointing}")
        return activations(recipe, (1, 8, 8), 10, 4)

    tokens = 4 * 16 * 32 * 4
    assert cost(5, "true") - cost(3, "true") == 2 * tokens
    assert cost(1, "true") == cost(1, "false") + tokens
    assert cost(6, "true") < cost(6, "false") / 3


def test_sharding_divides_the_stored_tensors_and_gathers_two_blocks() -> None:
    whole = memory(small(), DIGITS, processes=4)
    shards = memory(small("compute.parallel=fsdp"), DIGITS, processes=4)
    for part in ("weights", "gradients", "moments of AdamW", "EMA (1)"):
        assert whole[part] / 4 <= shards[part] < whole[part] / 3
    assert shards["activations"] == whole["activations"]
    assert 0 < shards["gathered weights"] < whole["gradients"]
    hybrid = [memory(small("compute.parallel=hybrid"), DIGITS, processes=n, machine=4) for n in (4, 12)]
    assert hybrid[0] == shards
    assert hybrid[1]["gradients"] == shards["gradients"]
    deep = memory(small("compute.parallel=fsdp", "backbone.depth=9"), DIGITS, processes=4)
    assert deep["gathered weights"] == shards["gathered weights"]


class Plain(torch.nn.Module):
    """A network without blocks and without labels."""

    def __init__(self, *, input_size: int, in_channels: int, num_classes: int):
        super().__init__()
        self.linear = torch.nn.Conv2d(in_channels, in_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.linear(x) * t[:, None, None, None]  # type: ignore[no-any-return]


@pytest.mark.parametrize("more", [(), ("compute.parallel=fsdp", "compute.activation_checkpointing=true")])
def test_any_network_can_be_described(more: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "load", lambda trust, kind: Plain)
    recipe = read_recipe("digits", ["backbone.kind=mine:Plain", *more])
    assert forward_macs(recipe, (2, 8, 8), 0) == 8 * 8 * 9 * 2 * 2
    assert memory(recipe, DataSummary((2, 8, 8), 0, 5), processes=2)["activations"] > 0
    assert "0 classes" in describe(recipe, DataSummary((2, 8, 8), 0, 5), processes=2)


class Curious(Plain):
    """A network that asks for a number."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t * t.sum().item())


def test_a_network_that_reads_values_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trust, "load", lambda trust, kind: Curious)
    recipe = read_recipe("digits", ["backbone.kind=mine:Curious"])
    with pytest.raises(UserError, match=r"backbone = mine:Curious cannot be measured by shapes alone: [^\n]+$"):
        forward_macs(recipe, (2, 8, 8), 0)
    with pytest.raises(UserError, match="shapes alone"):
        activations(recipe, (2, 8, 8), 0, 1)


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_dry_run(name: str) -> None:
    recipe = read_recipe(name)
    facts = summary_of(recipe)
    text = describe(recipe, facts, processes=8)
    rows = dict(re.findall(r"^  (.+?)  +(.+)$", text, flags=re.MULTILINE))
    assert {"data", "parameters", "steps", "epochs", "weights", "activations", "in all, at most about"} <= {*rows}
    if name.startswith("imagenet"):
        assert not facts.found
        assert facts == STATED[name.partition("-")[0]]
        assert "not found here" in text


@pytest.mark.parametrize("data", ["folder", "lightningdit"])
def test_a_dry_run_without_the_data_takes_their_shape_and_classes_from_the_recipe(data: str) -> None:
    more = {"folder": ", size=256", "lightningdit": ", vae='x'"}[data]
    with pytest.raises(UserError, match=r"there is no .*nowhere.*; for a dry run without the data give .*absent"):
        summary_of(read_recipe("imagenet256-s", [f"data={{kind='{data}', path='nowhere'{more}}}"]))
    recipe = read_recipe("imagenet256-s", ["data={kind='absent', shape=[4, 32, 32], classes=1000}"])
    assert summary_of(recipe) == DataSummary((4, 32, 32), 1000, None)
    stated = describe(read_recipe("imagenet256-s"), STATED["imagenet256"]).splitlines()
    text = describe(recipe, summary_of(recipe)).splitlines()
    assert len(text) == len(stated)
    changed = {line.split("  ")[1] for line, other in zip(text[1:], stated[1:], strict=True) if line != other}
    assert changed == {"data", "epochs"}
    assert any("epochs" in line and "not known" in line for line in text)


def test_the_table_adds_up_and_is_aligned() -> None:
    recipe = of_size("sit_b", "train.batch=100", "train.steps=1000")
    text = describe(recipe, STATED["imagenet256"], processes=4)
    rows = [line for line in text.splitlines() if line.startswith("  ")]
    width = len("  forward pass, one image  ")
    assert all(line[width - 2 : width] == "  " and line[2:width].strip() for line in rows)
    sizes = [float(size) for size in re.findall(r"([\d.]+) GiB", text)]
    assert sum(sizes[:-1]) == pytest.approx(sizes[-1], abs=0.05)
    assert sizes[-1] == pytest.approx(sum(memory(recipe, STATED["imagenet256"], 4).values()) / GIB, abs=0.006)
    for wanted in (
        "100,000, 100 a step",
        "  0.1\n",
        "1.38e+16",
        "23.01 G multiply-acc",
        " 138 G oper",
        "step            25",
    ):
        assert wanted in text, wanted
    assert "MiB" in describe(small(), DIGITS)


def test_an_impossible_estimate_is_one_line() -> None:
    with pytest.raises(UserError, match="square"):
        describe(small(), DataSummary((1, 8, 6), 10, 5))
    with pytest.raises(UserError, match="patch_size must divide"):
        describe(small(), DataSummary((1, 7, 7), 10, 5))
    with pytest.raises(UserError, match=r"train.batch = 12 must be divisible by .* 5 x 1"):
        describe(small(), DIGITS, processes=5)
    with pytest.raises(UserError, match="no latents"):
        summary_of(read_recipe("digits", ["data.kind=latents", "data.path=nowhere"]))
