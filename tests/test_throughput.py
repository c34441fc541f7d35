"""The benchmark of throughput: equal networks are timed, and their operations are counted correctly."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from sitkit.backbones import SiT

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import interleaved
import scaling
import shapes
import throughput
import throughput_table
import workloads
from shapes import Setup

pytestmark = pytest.mark.slow


def network(setup: Setup) -> SiT:
    depth, width, heads = setup.shape
    sizes: dict[str, Any] = {"hidden_size": width, "depth": depth, "num_heads": heads, "num_classes": shapes.CLASSES}
    return SiT(input_size=setup.side, patch_size=2, in_channels=4, **sizes)


def counted(model: nn.Module, setup: Setup, backward: bool = False) -> int:
    """Return the operations of a pass that torch counts on meta tensors."""
    x = torch.zeros(setup.batch, 4, setup.side, setup.side, device="meta", requires_grad=True)
    t, y = torch.zeros(len(x), device="meta"), torch.zeros(len(x), device="meta", dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        out = model(x, t, y)
        if backward:
            out.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("size", "side"), [("S", 16), ("S", 32), ("S", 64), ("B", 32), ("L", 32), ("XL", 32)])
def test_operations_are_those_that_torch_counts(size: str, side: int) -> None:
    setup = Setup("sitkit", size, batch=2, side=side)
    with torch.device("meta"):
        model = network(setup)
    assert setup.operations() == counted(model, setup)
    if size == "S":  # with its gradients, attention is counted 3.5 times
        assert 3 * setup.operations() == pytest.approx(counted(model, setup, backward=True), rel=0.06)


def test_operations_of_the_matrices() -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        torch.mm(*torch.zeros(2, shapes.MATRIX, shapes.MATRIX))
    assert Setup("matrix").operations() == counter.get_total_flops()


@torch.no_grad()
def test_the_plain_network_is_the_same_function() -> None:
    setup = Setup("plain", "S", batch=2, side=8, depth=2)
    mine, (other, call) = network(setup), workloads.plain(setup)
    workloads.randomise(mine)
    other.load_state_dict(mine.state_dict())
    x, t, y = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([3, 1000])
    torch.testing.assert_close(call(x, t, y), mine(x, t, y), rtol=1e-4, atol=1e-4)
    assert call(x, t, y).abs().max() > 1e-2


@torch.no_grad()
def test_diffusers_network_is_of_the_same_shape() -> None:
    setup = Setup("diffusers", "S", batch=2, side=8, depth=2)
    other, call = workloads.diffusers(setup)
    x, t, y = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([3, 7])
    assert call(x, t, y).shape == x.shape
    of_blocks = {"attn1": 4 * 384**2, "ff": 8 * 384**2}
    for name, size in of_blocks.items():
        weights = [p for p in getattr(other.transformer_blocks[1], name).parameters() if p.ndim == 2]
        assert sum(p.numel() for p in weights) == size
    assert len(other.transformer_blocks) == 2


@pytest.mark.parametrize(
    ("network", "more"),
    [
        ("sitkit", {}),
        ("sitkit", {"micro_batches": 2}),
        ("sitkit", {"activation_checkpointing": True}),
        ("plain", {}),
        ("diffusers", {}),
    ],
)
def test_timed_steps_train(network: str, more: dict[str, Any]) -> None:
    setup = Setup(network, "S", batch=2, side=8, depth=1, threads=1)
    trial = workloads.build(replace(setup, **more))
    trial.forward()
    trial.step()
    trial.step()


def test_the_matrices_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MATRIX", 8)
    workloads.matmul_workload(Setup("matrix")).forward()
    assert Setup("matrix").operations() == 2 * 8**3


def test_turns_are_taken_by_separate_processes_that_divide_a_batch() -> None:
    alone = Setup("sitkit", "S", batch=2, side=8, depth=1, threads=1)
    setups = [replace(alone, network="plain"), alone, replace(alone, processes=2)]
    said: list[str] = []
    times = interleaved.time_interleaved(setups, 2, say=said.append)
    assert len(said) == 3
    for setup, record in zip(setups, times, strict=True):
        assert throughput_table.setup_of(record) == setup
        for what in ("forward", "step", "forward_cpu", "step_cpu"):
            assert len(record[what]) == 2
            assert 0 < min(record[what]) <= max(record[what]) < 60
        assert 10**8 < record["bare"] < record["memory"] < 10**10
    assert times[2]["bare"] > 1.5 * times[1]["bare"]  # of both processes


def test_setups_are_named() -> None:
    setup = Setup("sitkit", "S")
    assert throughput_table.title(vars(replace(setup, processes=2))) == "sitkit, 2 processes"
    assert throughput_table.title(vars(replace(setup, micro_batches=4, activation_checkpointing=True))) == (
        "sitkit, 4 micro-batches, activation checkpointing"
    )


def made_up(network: str, seconds: float, **more: Any) -> dict[str, Any]:
    setup = vars(Setup(network, **more))
    times = {what: [seconds, 2 * seconds, 3 * seconds] for what in ("forward", "step", "forward_cpu", "step_cpu")}
    return {**setup, **times, "load": [1.0] * 3, "memory": 2**30, "bare": 2**29, "ready": 1.0}


def test_fractions_and_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def take(group: list[Setup], rounds: int, *_: Any) -> list[dict[str, Any]]:
        assert rounds == 3
        return [made_up(one.network, 1.0 + (one.network == "plain"), batch=one.batch) for one in group]

    monkeypatch.setattr(throughput, "time_interleaved", take)
    results = tmp_path / "results.jsonl"
    wanted = ["run", "--batch", "4", "--rounds", "3", "--results", str(results)]
    assert CliRunner().invoke(throughput.app, wanted, catch_exceptions=False).exit_code == 0
    content = results.read_bytes()
    assert "done" in CliRunner().invoke(throughput.app, wanted, catch_exceptions=False).output
    assert results.read_bytes() == content
    results.write_bytes(content + content[:50])  # cut short
    shown = CliRunner().invoke(throughput.app, ["table", "--results", str(results), "--out", str(tmp_path)]).output
    assert "| plain | 1 (0.833 to 1.5) |" in shown
    (name,) = (summary := json.loads((tmp_path / "throughput.json").read_text()))["runs"]
    numbers = summary["runs"][name]
    operations = Setup("sitkit", batch=4).operations()
    assert numbers["sitkit"]["forward share"] == pytest.approx(3 * [operations / Setup("matrix").operations()])
    assert numbers["sitkit"]["step share"] == pytest.approx(3 * [3 * operations / Setup("matrix").operations()])
    assert numbers["plain"]["step share"] == pytest.approx(3 * [1.5 * operations / Setup("matrix").operations()])
    assert numbers["plain"]["ratio"] == [2.0, 2.0, 2.0]


def test_forward_passes_alone_are_tabled() -> None:
    records = [made_up(one, 1.0 + (one == "plain")) for one in ("matrix", "sitkit", "plain")]
    bare = [{key: value for key, value in record.items() if not key.startswith("step")} for record in records]
    lines, numbers = throughput_table.describe({"name": "some", "times": bare, "machine": {}, "clock": "wall"})
    assert "step" not in "".join(lines)
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert numbers["plain"]["ratio"] == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("device", "load", "clock"), [("cpu", 0.7, "wall"), ("cpu", 2.0, "processor"), ("cuda", 2.0, "wall")]
)
def test_the_clock_is_that_of_the_wall_where_nobody_else_was_busy(device: str, load: float, clock: str) -> None:
    loads = [{"load": [0.0, load * (os.cpu_count() or 1), 1e3]}]
    assert throughput_table.default_clock({"times": loads, "setups": [{"device": device}]}) == clock


def test_growth_finds_the_exponent_of_the_operations(tmp_path: Path) -> None:
    groups = {}
    for axis in scaling.AXES:
        setups = scaling.setups(axis, 1)
        times = [made_up(**vars(one), seconds=one.operations() / 1e12) for one in setups]
        groups[axis] = {"times": times, "clock": "wall"}
    rows = {row["axis"]: row for row in scaling.exponents(groups)}
    assert rows["batch"]["operations"] == 1.0
    assert 1.0 < rows["tokens"]["operations"] < 1.3
    assert rows["processes"]["operations"] == 0.0
    for axis, row in rows.items():
        if axis != "processes":
            assert row["forward"] == row["step"] == row["operations"]
            assert row["memory"] == 0.0
    scaling.draw(groups, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size < 300_000


def test_impossible_timings_are_refused() -> None:
    for wrong in (["run", "--mode", "tf32"], ["grow", "--axis", "width"], ["divide", "--batch", "3"]):
        result = CliRunner().invoke(throughput.app, wrong)
        assert type(result.exception).__name__ == "UserError"
