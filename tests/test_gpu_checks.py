"""The checks for a GPU: they run without one, a failure does not stop the others, and they resume."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import gpu
import gpu_cases
import gpu_findings
import gpu_library
import gpu_speed
from gpu_findings import Findings
from shapes import Setup

pytestmark = pytest.mark.slow


def found(folder: Path, section: str) -> dict[str, Any]:
    return {finding["what"]: finding for finding in gpu_findings.read(folder) if finding["section"] == section}


def test_the_libraries_are_compared_on_the_cpu(tmp_path: Path) -> None:
    gpu_library.check(Findings(tmp_path, "library", "cpu", quick=True), 60)
    findings = found(tmp_path, "library")
    assert not any("failed" in finding for finding in findings.values()), findings
    assert findings["GPU against CPU"]["cases"] > 5
    assert float(findings["error of float32"]["network"]) < 1e-6 < float(findings["error of bf16"]["network"])


def test_a_case_that_differs_or_raises_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drifting = iter([0.0, 1.0])

    def wrong(device: torch.device) -> torch.Tensor:
        return torch.ones(2) + next(drifting)

    def raising(device: torch.device) -> torch.Tensor:
        raise ValueError("not here")

    monkeypatch.setattr(gpu_library, "cases", lambda: {"wrong": wrong, "raising": raising})
    gpu_library._compare(Findings(tmp_path, "library", "cpu"), torch.device("cpu"))
    failed = found(tmp_path, "library")["GPU against CPU"]["failed"]
    assert len(failed) == 2
    assert "ValueError: not here" in failed[0]
    assert "wrong: differs by 1.0e+00" in failed[1]


def test_there_is_a_case_for_every_path_and_network() -> None:
    names = [*gpu_cases.cases()]
    assert len(names) > 200
    for word in ("Linear", "GVP", "VP", "DDPM", "SiT, gradient", "philox words", "plan", "sdeint", "likelihood"):
        assert any(word in name for name in names), word


def test_a_failed_check_is_reported_and_others_continue(tmp_path: Path) -> None:
    findings = Findings(tmp_path, "speed")

    def fail() -> None:
        raise RuntimeError("out of | memory")

    findings.guard("first", fail)
    findings.guard("second", lambda: findings.write("second", value=[1, 2]))
    assert found(tmp_path, "speed")["first"]["failed"] == "RuntimeError: out of | memory"
    lines = gpu_findings.page(tmp_path).splitlines()
    assert lines[0] == "## speed"
    assert r"| **first** | failed: RuntimeError: out of \| memory |" in lines
    assert lines[-1] == "| second | value: 1, 2 |"
    with (tmp_path / gpu_findings.FINDINGS).open("a") as file:
        file.write('{"cut sho')
    assert len(gpu_findings.read(tmp_path)) == 2


def test_sections_that_have_ended_are_run_again_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def section(findings: Findings, seconds: float) -> None:
        ran.append(findings.section)
        findings.write("one")
        if findings.section != "training" or len(ran) > len(gpu.SECTIONS):  # stopped, the first time
            findings.write("ended")

    monkeypatch.setattr(gpu, "_run_section", section)
    words = ["run", "--device", "cpu", "--quick", "--out", str(tmp_path)]
    for more, expected in (
        ([], [*gpu.SECTIONS]),
        ([], ["training"]),
        ([], []),
        (["--only", "speed", "--only", "library"], ["speed", "library"]),
    ):
        before = len(ran)
        result = CliRunner().invoke(gpu.app, [*words, *more])
        assert result.exit_code == 0, result.output
        assert ran[before:] == expected
    assert len(gpu_findings.read(tmp_path)) == 2 * len(gpu.SECTIONS)
    assert "no section 'nothing'; known: library" in str(CliRunner().invoke(gpu.app, [*words, "--only", "nothing"]))
    monkeypatch.setattr("gpu.time.monotonic", iter([0.0, 597.0]).__next__)
    assert "suite: no time is left" in CliRunner().invoke(gpu.app, [*words, "--only", "suite"]).output


def test_a_section_that_dies_or_takes_too_long_is_a_finding(tmp_path: Path) -> None:
    gpu._run_section(Findings(tmp_path, "nothing", "cpu"), 60)
    assert found(tmp_path, "nothing")["ended"]["failed"] == "exit code 1"
    gpu._run_section(Findings(tmp_path, "library", "cpu"), 0.2)
    assert found(tmp_path, "library")["ended"]["failed"] == "not done after 0 s"


def test_figures_follow_from_times() -> None:
    setup = Setup("sitkit", "XL", 32, mode="bf16", device="cuda")
    times = {"forward": [0.1, 0.2, 0.3], "step": [0.5, 0.4, 0.9], "memory": 3 * 2**30, "ready": 1.0}
    figures = gpu_speed._figures(setup, times)
    assert figures["training images/s"] == 64.0
    assert figures["MFU"] == pytest.approx(3 * setup.operations() / 0.5 / 989.4e12, abs=1e-4)
    assert figures["memory GiB"] == 3.0
