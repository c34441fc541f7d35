"""The section `suite` of `gpu.py`: the tests, on all cores; commands in them use the GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

from gpu_findings import Findings

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("test_wheel.py", "test_hf.py", "test_benchmarks.py", "test_throughput.py", "test_gpu_checks.py")
"""Tests that build packages, need a network or other packages, or time CPUs."""
QUICK = "test_philox.py"


def check(findings: Findings, seconds: float) -> None:
    """Run all tests that are not slow, in the remaining time."""
    workers = max(1, (os.cpu_count() or 2) - 1)
    words = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "--tb", "short", "-p", "no:cacheprovider"]
    words += ["--numprocesses", str(workers), "--dist", "loadfile"] if not findings.quick else []
    words += [f"--ignore=tests/{name}" for name in LEFT_OUT]
    words.append(f"tests/{QUICK}" if findings.quick else "tests")
    log = findings.folder / "suite.txt"
    with log.open("w") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, env=environment)
        try:
            code = process.wait(max(1.0, seconds - 5))
            ended = {} if code == 0 else {"failed": f"exit code {code}"}
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(5)
            ended = {"stopped": f"after {seconds:.0f} s"}
    said = log.read_text()
    failures = re.findall(r"^(?:FAILED|ERROR) (.*)$", said, re.MULTILINE)
    lines = [line for line in said.splitlines() if re.search(r"\d+ (passed|failed)", line)]
    findings.write("tests", **ended, summary=lines[-1:], failures=[one[:160] for one in failures[:60]])
