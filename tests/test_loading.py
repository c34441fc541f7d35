"""Official weights: loaded without running code, equal to the official outputs."""

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sitkit.backbones import DiT, SiT, load_dit, load_sit
from sitkit.interpolants import DDPM

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINT = GOLDEN / "official-checkpoint.pt"


def arrays(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with np.load(GOLDEN / f"backbone-{name}.npz") as golden:
        return {key: torch.from_numpy(golden[key]) for key in golden if key != "config"}, json.loads(
            str(golden["config"])
        )


def weights_of(name: str) -> dict[str, Tensor]:
    golden, _ = arrays(name)
    return {key.removeprefix("state."): value for key, value in golden.items() if key.startswith("state.")}


def assert_official(network: SiT, name: str) -> None:
    golden, config = arrays(name)
    assert not network.training
    assert network.num_classes == config["num_classes"]
    with torch.no_grad():
        torch.testing.assert_close(
            network(golden["x"], golden["t"], golden["y"]), golden["output"], rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(network(golden["x"], golden["t"]), golden["output_null"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_training_checkpoint_with_a_namespace_inside(ema: bool, kind: type) -> None:
    assert_official(load_sit(kind(CHECKPOINT), num_heads=4, ema=ema), "velocity")


@pytest.mark.parametrize("name", ["velocity", "plain"])
def test_state_dicts_with_and_without_learned_sigma(name: str, tmp_path: Path) -> None:
    state, heads = weights_of(name), arrays(name)[1]["num_heads"]
    assert_official(load_sit(state, num_heads=heads), name)
    assert_official(load_sit({f"module.{key}": value for key, value in state.items()}, num_heads=heads), name)
    torch.save(state, tmp_path / "plain.pt")
    assert_official(load_sit(tmp_path / "plain.pt", num_heads=heads), name)
    save_file(state, tmp_path / "plain.safetensors")
    assert_official(load_sit(tmp_path / "plain.safetensors", num_heads=heads), name)


def test_averaged_and_raw_weights_are_told_apart() -> None:
    ema, model = weights_of("velocity"), weights_of("velocity")
    model["final_layer.linear.bias"] = model["final_layer.linear.bias"] + 1
    both = {"ema": ema, "model": model, "args": argparse.Namespace()}
    averaged, raw = (load_sit(both, num_heads=4, ema=choice).final_layer.linear.bias for choice in (True, False))
    torch.testing.assert_close(averaged + 1, raw)
    dits = [load_dit(both, num_heads=4, **choice) for choice in ({}, {"ema": True}, {"ema": False})]
    biases = [dit.network.final_layer.linear.bias for dit in dits]
    assert torch.equal(biases[0], averaged)
    assert torch.equal(biases[1], averaged)
    assert torch.equal(biases[2], raw)
    assert torch.equal(load_sit(both, num_heads=4).final_layer.linear.bias, averaged)
    with pytest.raises(ValueError, match="has no 'ema' weights, but 'model': give ema=False"):
        load_sit({"model": model}, num_heads=4)


@pytest.mark.parametrize(("width", "heads"), [(384, 6), (768, 12), (1024, 16), (1152, 16)])
def test_heads_follow_from_published_widths(width: int, heads: int) -> None:
    with torch.device("meta"):
        small = SiT(
            input_size=4, patch_size=2, in_channels=4, hidden_size=width, depth=1, num_heads=heads, num_classes=0
        ).state_dict()
    network = load_sit({key: torch.zeros(value.shape) for key, value in small.items()})
    assert network.blocks[0].attn.num_heads == heads  # type: ignore[union-attr]
    assert network.num_classes == 0
    other = load_sit({key: torch.zeros(value.shape) for key, value in small.items()}, num_heads=2)
    assert other.blocks[0].attn.num_heads == 2  # type: ignore[union-attr]


def test_heads_of_other_widths_are_asked_for() -> None:
    with pytest.raises(ValueError, match="no published size has width 48: give num_heads"):
        load_sit(CHECKPOINT)


def test_dit_is_asked_at_timesteps_and_returns_the_noise() -> None:
    state, path = weights_of("velocity"), DDPM()
    dit, network = load_dit(state, num_heads=4), load_sit(state, num_heads=4)
    assert isinstance(dit, DiT)
    assert not dit.training
    x, y = torch.randn(3, 4, 8, 8), torch.tensor([1, 2, 10])
    timesteps = torch.tensor([0, 417, 999])
    t = path.time(timesteps).float()
    with torch.no_grad():
        torch.testing.assert_close(dit(x, t, y), network(x, timesteps.float(), y), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dit.full(x, t, y), network.full(x, timesteps.float(), y), rtol=1e-4, atol=1e-4)
        assert torch.equal(dit(x, torch.ones(3), y), network(x, torch.zeros(3), y))
        half = torch.full((3,), 0.5)
        assert torch.equal(dit(x, half.bfloat16(), y), dit(x, half, y))  # 499 is no number of bfloat16
    assert dit.num_classes == 10
    with pytest.raises(ValueError, match="steps must be at least 1"):
        DiT(network, steps=0)


class Trap:
    """Would run code on loading, were it unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a file was run",))


def test_files_that_are_not_weights_are_refused_in_a_line(tmp_path: Path) -> None:
    cut, trap, table, other, no_dict = (tmp_path / f"{name}.pt" for name in ("cut", "trap", "table", "other", "no"))
    cut.write_bytes(CHECKPOINT.read_bytes()[:5000])
    torch.save({"ema": Trap()}, trap)
    torch.save({"ema": {"x": 3}}, table)
    torch.save({"weight": torch.zeros(3)}, other)
    torch.save([torch.zeros(3)], no_dict)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    (tmp_path / "cut.safetensors").write_bytes(b"12")
    cases = {
        cut: "is broken",
        trap: "is broken, or holds more than weights",
        tmp_path / "raw.pt": "is broken, or holds more than weights",
        tmp_path / "cut.safetensors": "is broken",
        table: "holds no state dict",
        no_dict: "holds no weights",
        other: "does not hold the weights of a SiT",
    }
    for file, said in cases.items():
        with pytest.raises(ValueError, match=said) as caught:
            load_sit(file, num_heads=4)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_sit(tmp_path / "none.pt")
    short = weights_of("velocity")
    del short["blocks.1.attn.qkv.weight"]
    with pytest.raises(ValueError, match=r"the state dict does not hold.*blocks\.1\.attn\.qkv\.weight"):
        load_sit(short, num_heads=4)
