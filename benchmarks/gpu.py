"""Checks and measurements of sitkit on a GPU, by one command, in ten minutes.

    python benchmarks/gpu.py run                                  # everything, on cuda
    python benchmarks/gpu.py run --only library --only speed      # only these sections, also if they are done
    python benchmarks/gpu.py run --device cpu --quick             # tests the checks without a GPU

| section | contents |
| --- | --- |
| `library` | each part of the libraries on the GPU against the CPU, precisions, synchronizations with the device |
| `speed` | SiT-XL/2 at batch 32: images/s, MFU and memory, in bf16 compiled, bf16 and TF32, and other libraries |
| `training` | training, repeated and resumed, whether equal to the bit; samples and bits/dim on GPU and CPU |
| `processes` | DDP and FSDP2: NCCL with one process, gloo with two processes on one GPU |
| `suite` | the tests, in the remaining time |

Each section is a process with a time limit, so that a failure does not affect the others. Findings go to
`findings.jsonl`, and `gpu.md` is a page of them. A section that has ended is only run again if `--only` names it, so
the same command resumes after a stop.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import gpu_findings
import torch
import typer
from gpu_findings import Findings

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
ROOT = Path(__file__).parents[1]
SECTIONS = {"library": 90.0, "speed": 200.0, "training": 150.0, "processes": 90.0, "suite": 600.0}
"""The sections by priority, and the time limit of each in seconds; `--minutes` limits all together."""
Out = Annotated[Path, typer.Option(help="The folder of findings.")]
Device = Annotated[str, typer.Option(help="cuda, or cpu to try the checks.")]
Quick = Annotated[bool, typer.Option("--quick", help="Everything small.")]


@app.command()
def run(
    out: Out = Path("runs/gpu"),
    device: Device = "cuda",
    quick: Quick = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(SECTIONS)}; may be repeated.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time limit of all sections together.")] = 10.0,
) -> None:
    """Run all sections that have not ended, or the given ones."""
    for name in only or ():
        if name not in SECTIONS:
            raise SystemExit(f"error: no section '{name}'; known: {', '.join(SECTIONS)}")
    if device != "cpu" and not torch.cuda.is_available():
        raise SystemExit("error: there is no GPU: give --device cpu --quick to try the checks")
    end = time.monotonic() + 60 * minutes
    ended = {finding["section"] for finding in gpu_findings.read(out) if finding["what"] == "ended"}
    for name in only or [section for section in SECTIONS if section not in ended]:
        left = end - time.monotonic()
        if left < 5:
            typer.echo(f"{name}: no time is left; run the same command again to continue")
            continue
        gpu_findings.forget(out, name)
        seconds = min(left, SECTIONS[name] * (1 if device == "cuda" else 5))
        typer.echo(f"{name}: at most {seconds:.0f} s")
        _run_section(Findings(out, name, device, quick), seconds)
        (out / "gpu.md").write_text(gpu_findings.page(out))
    typer.echo(f"{out / 'gpu.md'}: {sum('failed' in finding for finding in gpu_findings.read(out))} failed")


def _run_section(findings: Findings, seconds: float) -> None:
    """Run a section in a separate process, and record how it ended."""
    words = [
        sys.executable,
        __file__,
        "section",
        findings.section,
        "--out",
        str(findings.folder),
        "--device",
        findings.device,
    ]
    words += ["--quick"] * findings.quick + ["--seconds", str(seconds)]
    start = time.monotonic()
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            code = process.wait(seconds)
            failed = {} if code == 0 else {"failed": f"exit code {code}"}
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with all that it has started
            failed = {"failed": f"not done after {seconds:.0f} s"}
    findings.write("ended", seconds=round(time.monotonic() - start, 1), **failed)


@app.command(hidden=True)
def section(
    name: str, out: Out, device: Device = "cuda", quick: Quick = False, seconds: Annotated[float, typer.Option()] = 60.0
) -> None:
    """Run one section in this process."""
    findings = Findings(out, name, device, quick)
    findings.write("machine", **machine(device))
    check: Callable[[Findings, float], None] = import_module(f"gpu_{name}").check
    check(findings, seconds)


def machine(device: str) -> dict[str, str]:
    """Return device, driver and versions."""
    versions = {"torch": torch.__version__, "python": sys.version.split()[0], "command": "python benchmarks/gpu.py run"}
    if device == "cpu":
        return {"device": "cpu", **versions}
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {"device": torch.cuda.get_device_name(), "driver": driver, "cuda": str(torch.version.cuda), **versions}


if __name__ == "__main__":
    app()
