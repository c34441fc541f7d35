"""The section `speed` of `gpu.py`: SiT-XL/2 compared with a plain implementation and diffusers, by `throughput.py`."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import throughput
from gpu_findings import Findings
from shapes import Setup

PEAKS = {"bf16": 989.4e12, "tf32": 494.7e12, "float32": 66.9e12}
"""Dense peak operations per second of an H100 or H200 (SXM), from their data sheets, for MFU."""

GROUPS = (
    ("bf16", True, ("matrix", "sitkit")),
    ("bf16", False, ("sitkit",)),
    ("tf32", False, ("matrix", "sitkit")),
    ("bf16", True, ("plain", "diffusers")),
    ("bf16", False, ("plain", "diffusers")),
)
"""Precision, whether blocks are compiled, and the networks, by priority: the time is limited."""


def check(findings: Findings, seconds: float) -> None:
    """Time a forward pass and a step of each, and record images/s, MFU and memory."""
    _times(findings).unlink(missing_ok=True)
    size, batch, rounds = ("S", 2, 1) if findings.quick else ("XL", 32, 7)
    for mode, compiled, who in GROUPS:
        if findings.quick and (compiled or mode == "tf32" or who != ("sitkit",)):
            continue
        default = Setup("matrix", size, batch, mode=mode, device=findings.device, threads=2 if findings.quick else 8)
        if findings.quick:
            default = replace(default, depth=1, side=8)
        setups = [default if one == "matrix" else replace(default, network=one, compiled=compiled) for one in who]
        name = f"SiT-{size}/2, batch {batch}, {mode}{', compiled' if compiled else ''}"
        findings.guard(name, lambda name=name, setups=setups: _measure(findings, name, setups, rounds))  # type: ignore[misc]


def _measure(findings: Findings, name: str, setups: list[Setup], rounds: int) -> None:
    throughput.measure(_times(findings), f"{name}, {'-'.join(one.network for one in setups)}", setups, rounds)
    for setup, times in zip(setups, throughput.read(_times(findings))[-1]["times"], strict=True):
        findings.write(name, who=setup.network, **_figures(setup, times))


def _times(findings: Findings) -> Path:
    return findings.folder / "throughput.jsonl"


def _figures(setup: Setup, times: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the table for a setup."""
    forward, work = median(times["forward"]), setup.operations()
    if setup.network == "matrix":
        return {"teraflops": round(work / forward / 1e12, 1)}
    step = median(times["step"])
    return {
        "training images/s": round(setup.batch / step, 1),
        "sampling images/s, per network call": round(setup.batch / forward, 1),
        "step ms": round(1e3 * step, 2),
        "MFU": round(3 * work / step / PEAKS[setup.mode], 4),
        "MFU, forward": round(work / forward / PEAKS[setup.mode], 4),
        "memory GiB": round(times["memory"] / 2**30, 2),
        "ready after s": round(times["ready"], 1),
    }
