"""Official weights: loaded without running code, with outputs equal to the official ones."""

import argparse
import json
import os
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


def test_ema_and_raw_weights_are_distinguished() -> None:
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
        assert torch.equal(dit(x, half.bfloat16(), y), dit(x, half, y))  # bfloat16 cannot represent 499
    assert dit.num_classes == 10
    with pytest.raises(ValueError, match="steps must be at least 1"):
        DiT(network, steps=0)


class Trap:
    """An object that would run code if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a file was run",))


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


class Config:
    """An object beside the weights in files of other projects; creating it would fail the test."""

    def __init__(self) -> None:
        self.lr = 1e-4

    def __setstate__(self, state: dict[str, float]) -> None:
        pytest.fail("an object of a class that is not sitkit's was made")


BESIDE = {"epoch": 3, "config": Config(), "best": np.float64(2.5), "where": Path("x"), "args": argparse.Namespace(a=1)}
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
LAYOUTS: dict[str, Any] = {
    "ddp": lambda raw, ema: wrapped(ema, "module."),
    "compiled": lambda raw, ema: wrapped(ema, "_orig_mod."),
    "compiled, then ddp": lambda raw, ema: wrapped(ema, "module._orig_mod."),
    "ddp, then compiled": lambda raw, ema: wrapped(ema, "_orig_mod.module."),
    "averaged model": lambda raw, ema: {"n_averaged": torch.tensor(7), **wrapped(ema, "module.")},
    "state_dict": lambda raw, ema: {"state_dict": ema, **BESIDE},
    "lightning": lambda raw, ema: {
        "state_dict": wrapped(ema, "model.") | {"loss.weight": torch.ones(1)}, "optimizer_states": [OPTIMIZER],
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": Path("x")}}, **BESIDE,
    },
    "lightning with averages": lambda raw, ema: {
        "state_dict": wrapped(raw, "net.") | wrapped(ema, "ema_model."), **BESIDE,
    },
    "callback with averages": lambda raw, ema: {
        "state_dict": wrapped(raw, "model._orig_mod."),
        "callbacks": {"EMACallback": {"ema_state_dict": wrapped(ema, "model.")}},
    },
    "ema_model": lambda raw, ema: {
        "model": wrapped(raw, "module."), "ema_model": ema, "optimizer": OPTIMIZER, **BESIDE,
    },
    "one table of both": lambda raw, ema: wrapped(raw, "module.") | wrapped(ema, "ema."),
    "trainer": lambda raw, ema: {"trainer": {"net": raw, "model_ema": wrapped(ema, "module.")}, **BESIDE},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_others_load(layout: str, tmp_path: Path) -> None:
    ema, raw = weights_of("velocity"), weights_of("velocity")
    raw["final_layer.linear.bias"] = raw["final_layer.linear.bias"] + 1
    table = LAYOUTS[layout](raw, ema)
    torch.save(table, tmp_path / "x.ckpt")
    assert_official(load_sit(tmp_path / "x.ckpt", num_heads=4), "velocity")
    assert_official(load_sit(table, num_heads=4), "velocity")
    bias = load_sit(tmp_path / "x.ckpt", num_heads=4, ema=False).final_layer.linear.bias
    has_raw = any(key in layout for key in ("averages", "ema_model", "both", "trainer"))
    assert torch.equal(bias, raw["final_layer.linear.bias"] if has_raw else ema["final_layer.linear.bias"])


def test_a_file_format_is_recognised_by_its_content(tmp_path: Path) -> None:
    save_file(weights_of("velocity"), tmp_path / "x.bin")
    assert_official(load_sit(tmp_path / "x.bin", num_heads=4), "velocity")
    torch.save(weights_of("velocity"), tmp_path / "y.safetensors")
    assert_official(load_sit(tmp_path / "y.safetensors", num_heads=4), "velocity")
    torch.save(weights_of("velocity"), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_official(load_sit(tmp_path / "old.pt", num_heads=4), "velocity")


def test_files_that_hold_no_weights_are_refused_by_kind(tmp_path: Path) -> None:
    state = weights_of("velocity")
    several = {"ema_0.999": state, "ema_0.9999": state}
    table: dict[str, tuple[bytes | Any, str]] = {
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS.*git lfs pull"),
        "page": (b"\n<!DOCTYPE html><html><head>", "is a web page"),
        "html": (b"<html>not found</html>", "is a web page"),
        "xml": (b"<?xml version='1.0'?><Error>", "is XML"),
        "json": (b'{"weight_map": {}}', "is JSON"),
        "none": (b"", "is empty"),
        "text": (b"not weights at all, but words", "is text: name a file of weights"),
        "whole": (torch.nn.Linear(2, 2), "an object of class torch.nn.modules.linear.Linear.*save the weights alone"),
        "inside": ({"ema": torch.nn.Linear(2, 2), "epoch": 1}, "an object of class torch.nn.modules.linear.Linear"),
        "command": ({"ema": state, "run": Command()}, "an object of class posix.system|an object of class nt.system"),
        "values": ({key: Config() for key in state}, r"holds no state dict: .* is of class [\w.]*Config"),
        "several": (several, "several state dicts: ema_0.999, ema_0.9999"),
        "averages": ({"ema": state}, ""),
        "others": ({"state_dict": {"conv.weight": torch.ones(2)}}, "lacks x_embedder.proj.weight, and has conv.weight"),
    }  # fmt: skip
    for name, (content, said) in table.items():
        file = tmp_path / f"{name}.pt"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            torch.save(content, file)
        if not said:
            with pytest.raises(ValueError, match="has no 'model' weights, but 'ema': give ema=True"):
                load_sit(file, num_heads=4, ema=False)
            continue
        with pytest.raises(ValueError, match=said) as caught:
            load_sit(file, num_heads=4)
        line = str(caught.value)
        assert line.startswith(str(file))
        assert "\n" not in line
        assert "weights_only" not in line
        assert len(line) < 400 + len(str(file))
    whole = (tmp_path / "averages.pt").read_bytes()
    for length in (1, 3, 30, 300, 3000, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pt is broken"):
            load_sit(tmp_path / "cut.pt", num_heads=4)


class Command:
    """An object that would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


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
        trap: "holds an object of class _pytest.outcomes",
        tmp_path / "raw.pt": "holds an object of class _pytest.outcomes",
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
