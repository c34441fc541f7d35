"""`sitkit plane`: transport in two dimensions."""

from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image

from sitkit.backbones import Mixture, MixtureBridge
from sitkit.recipes.metrics import energy_distance
from sitkit.recipes.plane import bridge_demo, demo, page, plots
from sitkit.recipes.plane.bridge_demo import train_bridge
from sitkit.recipes.plane.bridge_flow import BRIDGE_DIFFUSIONS, BRIDGES, BridgeField, flow_between
from sitkit.recipes.plane.demo import plane, train_velocity
from sitkit.recipes.plane.flow import flow_by_ode, flow_by_sde
from sitkit.recipes.plane.targets import TARGETS
from sitkit.samplers import SineSquared


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points and steps."""
    monkeypatch.setattr(demo, "POINTS", 400)
    for module in (demo, bridge_demo, page):
        monkeypatch.setattr(module, "PAGE_POINTS", 60)
    for module in (demo, bridge_demo):
        monkeypatch.setattr(module, "PAGE_STEPS", 8)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_functions_of_their_generator_centred_and_of_unit_size(name: str) -> None:
    target = TARGETS[name]
    first, second = (target(4000, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (4000, 2)
    assert first.mean(0).abs().max() < 0.15
    assert 0.5 < first.std() < 1.5
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    fresh = target(4000, torch.Generator().manual_seed(2))
    assert energy_distance(first, noise) > 10 * energy_distance(first, fresh)


def test_there_are_six_classic_targets() -> None:
    assert set(TARGETS) == {"moons", "circles", "checkerboard", "pinwheel", "spirals", "ring"}


def test_a_little_training_brings_noise_much_nearer_to_data() -> None:
    target, generator = TARGETS["ring"], torch.Generator().manual_seed(0)
    velocity = train_velocity(target, 100, generator)
    noise, fresh = torch.randn(400, 2, generator=generator), target(400, generator)
    for found in (flow_by_ode(velocity, noise), flow_by_sde(velocity, noise, seed=0)):
        assert torch.equal(found.states[0], noise)
        assert len(found.states) == len(found.times)
        assert energy_distance(found.states[-1], fresh) < 0.25 * energy_distance(noise, fresh)


def test_the_command_writes_plots_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    said: list[str] = []
    plane("moons", tmp_path, seed=0, steps=5, say=said.append)
    assert any("energy distance to fresh data, SDE" in line for line in said)
    assert any("between two fresh data sets" in line for line in said)
    for name in ("transport.png", "velocity.png", "flow.gif"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 300
            assert getattr(picture, "n_frames", 1) == (40 if name.endswith("gif") else 1)
    assert (tmp_path / "flow.gif").stat().st_size < 1e6
    assert (tmp_path / "flow.html").stat().st_size < 1.5e6


def test_a_source_gives_plots_and_metrics_of_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    monkeypatch.setattr(plots, "FRAMES", 3)
    said: list[str] = []
    plane("moons", tmp_path, source="circles", bridge="brownian", seed=0, steps=2, say=said.append)
    for way, end in (("circles to moons", "moons"), ("moons to circles", "circles")):
        for name in ("ODE", "SDE"):
            assert any(f"{way}: energy distance to fresh {end}, {name}" in line for line in said)
        assert any(f"between two fresh sets of {end}" in line for line in said)
        assert way in (tmp_path / "flow.html").read_text()
    for name in ("transport.png", "velocity.png", "flow.gif"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 300


@pytest.mark.parametrize(("source", "data"), [*product(TARGETS, TARGETS)])
def test_a_bridge_trains_between_every_pair(source: str, data: str) -> None:
    field = train_bridge(source, data, "sine", 2, torch.Generator().manual_seed(0))
    velocity, score = field(torch.zeros(3, 2), torch.full((3,), 0.5))
    assert velocity.shape == score.shape == (3, 2)
    assert velocity.any()


def test_a_little_training_carries_circles_to_moons_and_back() -> None:
    generator = torch.Generator().manual_seed(0)
    field = train_bridge("circles", "moons", "sine", 150, generator)
    points = {name: TARGETS[name](400, generator) for name in ("circles", "moons")}
    for start, end, backward in (("circles", "moons", False), ("moons", "circles", True)):
        before = energy_distance(points[start], points[end])
        for w in (None, SineSquared()):
            flow = flow_between(field, points[start], w, 0, 20, backward=backward)
            assert torch.equal(flow.states[0], points[start])
            assert flow.times[0] == backward
            assert energy_distance(flow.states[-1], points[end]) < 0.5 * before


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.parametrize("backward", [False, True])
def test_every_bridge_and_w_carries_a_wide_normal_to_a_thin_one_and_back(name: str, backward: bool) -> None:
    """Solvers of order 1 on uniform times, and a wrong sign of the score in the reversed process, fail."""
    std = (1.0, 0.07)
    source, data = (Mixture.isotropic(torch.zeros(1, 2), one) for one in std)
    bridge = BRIDGES[name][0]
    exact = MixtureBridge(source, data, bridge)
    field = BridgeField(exact.velocity, exact.scored, bridge)
    start = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    start = std[backward] * start / start.norm() * 4000**0.5
    for w in (None, BRIDGE_DIFFUSIONS["2 SineSquared"][0]):
        flow = flow_between(field, start, w, 1, 80, backward=backward)
        assert flow.states[-1].norm() / 4000**0.5 == pytest.approx(std[not backward], rel=0.04)
