"""Runs commands of `sitkit` for the checks on a GPU, and reads their results."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sitkit.recipes.runs.run import Run


def sitkit(folder: Path, *words: object, timeout: float = 120) -> tuple[float, str]:
    """Run a command in a folder, and return its seconds and output.

    Raises:
        RuntimeError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    command = [sys.executable, "-m", "sitkit.recipes", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=folder, check=False)
    said = done.stderr + done.stdout
    if done.returncode:
        raise RuntimeError(f"sitkit {' '.join(map(str, words))}: exit code {done.returncode}: {said[-300:]}")
    return round(time.monotonic() - start, 1), said


def sets(*settings: str) -> list[str]:
    """Return settings as arguments of a command."""
    return [word for one in settings for word in ("--set", one)]


def digests(run: Path) -> dict[str, str]:
    """Return the sha256 of each part of a run's newest checkpoint."""
    files = sorted(Run(run).latest().rglob("*.safetensors"))
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def records(run: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
