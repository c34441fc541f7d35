"""`sitkit plane`: transport in two dimensions."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sitkit.recipes.metrics import energy_distance
from sitkit.recipes.plane import demo
from sitkit.recipes.plane.demo import plane, train_velocity
from sitkit.recipes.plane.flow import flow_by_ode, flow_by_sde
from sitkit.recipes.plane.targets import TARGETS


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points and steps."""
    for name, value in {"POINTS": 400, "PAGE_POINTS": 60, "PAGE_SHOWN": 50, "PAGE_STEPS": 8}.items():
        monkeypatch.setattr(demo, name, value)


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
