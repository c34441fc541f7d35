"""The interactive page of `sitkit plane`: one file with all trajectories."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import Markup

from sitkit.recipes.plane.flow import DIFFUSIONS, Trajectories, flow_by_exponential
from sitkit.recipes.plane.page import FlowDirection, SolvedFlow, flow_page

EVIL = "<script>alert('&')</script>"


def states(seed: int) -> torch.Tensor:
    return 3 * torch.randn(9, 7, 2, generator=torch.Generator().manual_seed(seed))


def flows(times: torch.Tensor, start: str, end: str, first: int) -> FlowDirection:
    ode = SolvedFlow("ODE", "", None, Trajectories(times, states(first)), 0.25)
    sdes = tuple(
        SolvedFlow(name, formula, w, Trajectories(times, states(first + n)), 0.125)
        for n, (name, (w, formula)) in enumerate(DIFFUSIONS.items(), 1)
    )
    return FlowDirection(start, end, states(99)[0], (0.001, 0.002), ode, sdes)


TIMES = torch.linspace(0, 1, 9)
DIRECTIONS = (flows(TIMES, "noise", "moons", 0), flows(TIMES.flip(0), "moons", "noise", 20))


@pytest.fixture(scope="module")
def page() -> str:
    return flow_page("Both ways", DIRECTIONS, learnt=Markup("<i>v</i>."), footer="end")


def content(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_is_one_file(page: str) -> None:
    assert page.startswith("<!doctype html>")
    assert not re.search(r"https?:|//[a-z]|src=|href=|@import|url\(", page.replace("// ", ""))
    assert page.count("<script") == 2


def test_the_page_has_every_w_in_each_direction(page: str) -> None:
    directions = content(page)["directions"]
    assert [one["backward"] for one in directions] == [False, True]
    for one in directions:
        assert {flow["name"]: flow["formula"] for flow in one["sdes"]} == {n: f for n, (_, f) in DIFFUSIONS.items()}
        assert {flow["distance"] for flow in one["sdes"]} == {"0.1250"}
        assert one["floor"] == ["0.0010", "0.0020"]
    assert page.count('name="w"') == len(DIFFUSIONS)
    curves = {flow["name"]: dict(map(tuple, flow["w"])) for flow in directions[0]["sdes"]}
    assert curves["KL"][0.5] == 2
    assert 0 not in curves["KL"]  # where w is infinite
    assert curves["Constant"][0] == 1


def test_stored_states_are_those_of_the_flows_by_increasing_time(page: str) -> None:
    found = content(page)
    for direction, stored in zip(DIRECTIONS, found["directions"], strict=True):
        for flow, one in zip(direction.flows, [stored["ode"], *stored["sdes"]], strict=True):
            levels = np.frombuffer(base64.b64decode(one["states"]), "<u2").reshape(5, 7, 2)
            values = (torch.tensor(levels.astype(float)) * 2 / found["levels"] - 1) * found["limit"]
            states = flow.trajectories.states[::2]  # of the times below
            expected = states.flip(0) if stored["backward"] else states
            assert (values - expected).abs().max() <= 1.001 * found["limit"] / 65535
            assert one["times"] == [0, 0.25, 0.5, 0.75, 1]


def test_names_are_escaped() -> None:
    page = flow_page(EVIL, [flows(TIMES, EVIL, EVIL, 0)], learnt=Markup(""), footer=EVIL)
    assert EVIL not in page


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_the_script_is_valid(page: str, tmp_path: Path) -> None:
    script = page.rsplit("<script>", 1)[1].split("</script>", maxsplit=1)[0]
    (tmp_path / "flow.js").write_text(script)
    done = subprocess.run(["node", "--check", tmp_path / "flow.js"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_a_browser_plays_half_of_the_flow_and_chooses_the_other_direction(page: str, tmp_path: Path) -> None:
    half = "moveTo(0); play(true); advance(1000); advance(1000 + 500 * SECONDS); moveTo(state.t);"
    other = "document.querySelectorAll('[name=direction]')[1].click(); moveTo(0);"
    said = "document.body.append(byId('sde').ariaLabel, ' / ', byId('sde-caption').textContent, ' / ');"
    (tmp_path / "flow.html").write_text(f"{page}<script>{half}{said}{other}{said}</script>")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
    command = ["chromium", *options.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "flow.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "Sigma: 7 points at t = 0.50 on their way from noise to moons" in done.stdout
    assert "/ Energy distance to fresh moons at t = 1: 0.1250 /" in done.stdout
    assert "Sigma: 7 points at t = 0.00 on their way from moons to noise" in done.stdout
    assert "/ Energy distance to fresh noise at t = 0: 0.1250 /" in done.stdout


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_the_flow_of_every_w_ends_with_the_variance_of_the_data(name: str) -> None:
    """Normal data as thin as the moons, whose velocity is known: a method of order 1 makes them thinner by a tenth."""
    w, std = DIFFUSIONS[name][0], 0.07

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t[:, None]
        return (std**2 * t - (1 - t)) / (std**2 * t**2 + (1 - t) ** 2) * x

    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    found = flow_by_exponential(velocity, noise, w, seed=1, steps=80)
    assert torch.equal(found.states[0], noise)
    assert (found.states[-1].norm() / std / 4000**0.5) == pytest.approx(1, abs=0.04)
