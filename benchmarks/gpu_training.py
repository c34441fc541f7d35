"""The section `training` of `gpu.py`: digits trained, trained again, and resumed; then sampled and evaluated."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gpu_commands import digests, records, sets, sitkit
from gpu_findings import Findings

DETERMINISTIC = "compute.deterministic=true"
MODES = {
    "float32, deterministic": (DETERMINISTIC,),
    "bf16, compiled, deterministic": ("train.precision=bf16", "compute.compile=true", DETERMINISTIC),
    "float32": (),
    "bf16": ("train.precision=bf16",),
    "tf32": ("train.precision=tf32",),
    "activation checkpointing, two micro-batches": (
        "compute.activation_checkpointing=true",
        "compute.gradient_accumulation=2",
    ),
}
"""Settings by name and priority; the first is also trained on the CPU."""
SAMPLERS = {
    "ODE": (),
    "SDE": ("sampler.kind=sde",),
    "Heun": ("sampler.solver=heun", "sampler.times=uniform", "sampler.interval=[0.001, 1.0]"),
}


def check(findings: Findings, seconds: float) -> None:
    """Train, and record whether runs are equal to the bit; compare losses, samples and bits/dim with the CPU."""
    folder = Path(tempfile.mkdtemp(prefix="gpu-training-"))
    try:
        first, *others = MODES
        findings.guard(f"training, {first}", lambda: _repeat(findings, folder, first))
        findings.guard("losses, GPU against CPU", lambda: _losses(findings, folder, first))
        for name in [*SAMPLERS][: 1 if findings.quick else None]:
            findings.guard(f"samples, {name}", lambda name=name: _samples(findings, folder, first, name))  # type: ignore[misc]
        findings.guard("bits", lambda: _bits(findings, folder, first))
        for name in [] if findings.quick else others:
            findings.guard(f"training, {name}", lambda name=name: _repeat(findings, folder, name))  # type: ignore[misc]
    finally:
        shutil.rmtree(folder)


def _small(findings: Findings, steps: int | None = None) -> list[str]:
    whole, every = (4, 2) if findings.quick else (200, 20)
    counts = {"train.steps": steps or whole, "checkpoint.every": every, "checkpoint.keep": 20, "log.every": every}
    tiny = ("backbone.hidden_size=16", "backbone.depth=1", "backbone.num_heads=2", "sampler.steps=2")
    return sets(
        *(f"{key}={value}" for key, value in counts.items()), "grid.every=1000", *(tiny if findings.quick else ())
    )


def _run(folder: Path, name: str, which: str) -> Path:
    return folder / f"{name.replace(' ', '-').replace(',', '')}-{which}"


def _repeat(findings: Findings, folder: Path, name: str) -> None:
    """Train, train again, and train in two halves, and compare the checkpoints."""
    seconds = []
    for which in ("whole", "again", "halves"):
        words = (
            "train",
            "digits",
            "--out",
            _run(folder, name, which),
            "--device",
            findings.device,
            *sets(*MODES[name]),
        )
        if which == "halves":
            sitkit(folder, *words, *_small(findings, 2 if findings.quick else 100))
        seconds.append(sitkit(folder, *words, *_small(findings))[0])
    whole, again, halves = (digests(_run(folder, name, which)) for which in ("whole", "again", "halves"))
    last = records(_run(folder, name, "again"))[-1]
    promised = DETERMINISTIC in MODES[name]
    differing = sorted(part for part in whole if not whole[part] == again[part] == halves[part])
    findings.write(
        f"training, {name}",
        **({"repeats to the bit": whole == again, "resumes to the bit": whole == halves}),
        **({"failed": f"not to the bit: {', '.join(differing)}"} if promised and differing else {}),
        seconds=seconds,
        loss=round(last["loss"], 4),
        **{"images/s": last["images_per_second"], "memory GiB": last["memory_gib"]},
    )


def _losses(findings: Findings, folder: Path, name: str) -> None:
    run = _run(folder, name, "cpu")
    sitkit(folder, "train", "digits", "--out", run, "--device", "cpu", *_small(findings), *sets(*MODES[name]))
    pairs = zip(records(run), records(_run(folder, name, "whole")), strict=True)
    gaps = [abs(here["loss"] - there["loss"]) / abs(here["loss"]) for here, there in pairs]
    wrong = {} if max(gaps) < 0.01 else {"failed": "the losses differ"}
    findings.write("losses, GPU against CPU", differences=[f"{gap:.0e}" for gap in gaps], **wrong)


def _samples(findings: Findings, folder: Path, name: str, sampler: str) -> None:
    run = _run(folder, name, "whole")
    found: dict[Path, Any] = {}
    count = 16 if findings.quick else 64
    for place in ("cpu", findings.device):
        out = folder / f"{sampler}-{place}-{len(found)}.npz"
        words = ("sample", run, "--samples", count, "--out", out, "--device", place, *sets(*SAMPLERS[sampler]))
        sitkit(folder, *words)
        found[out] = np.load(out)["arr_0"].astype(int)
    here, there = (*found.values(),)
    gap = abs(here - there)
    wrong = {} if gap.mean() < 1 else {"failed": "the samples differ"}
    differing = float((gap > 0).mean())
    findings.write(f"samples, {sampler}", **{"pixels that differ": differing, "most": int(gap.max())}, **wrong)


def _bits(findings: Findings, folder: Path, name: str) -> None:
    said = []
    for which, place in (("whole", findings.device), ("cpu", "cpu")):
        words = ("likelihood", _run(folder, name, which), "--images", 8, "--batch", 8, "--device", place)
        said.append(sitkit(folder, *words)[1].strip().splitlines()[-1][:120])
    findings.write("bits, of the runs of GPU and CPU", said=said)
