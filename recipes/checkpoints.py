"""Checkpoints: folders of safetensors and JSON, either whole or not there."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .problem import Problem

MANIFEST = "manifest.json"


def name(step: int) -> str:
    """Return the name of the checkpoint after a step."""
    return f"step-{step:08d}"


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], recipe: Mapping[str, Any]) -> Path:
    """Write `{part}.safetensors` for every part, the recipe, and a manifest of sizes and sha256; return the folder.

    All is written beside its place and renamed at the end, so that a crash leaves nothing half-written.
    """
    final = folder / name(step)
    draft = folder / f"{name(step)}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for part, values in tensors.items():
        save_file(
            {key: value.detach().contiguous().cpu() for key, value in values.items()}, draft / f"{part}.safetensors"
        )
    (draft / "recipe.json").write_text(json.dumps(recipe, indent=2))
    files = {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file)} for file in sorted(draft.iterdir())}
    (draft / MANIFEST).write_text(json.dumps({"step": step, "files": files}, indent=2))
    for file in (*draft.iterdir(), draft):
        _flush(file)
    if final.exists():  # the same step, trained again after its run was told to go on from an older one
        shutil.rmtree(final)
    os.replace(draft, final)
    _flush(folder)
    return final


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint in a folder, or None."""
    found = sorted(folder.glob("step-" + "[0-9]" * 8))
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def load(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """Return the tensors of a part, after its file has been compared with the manifest.

    Raises:
        Problem: the file is missing or damaged.
    """
    file = checkpoint / f"{part}.safetensors"
    try:
        entry = json.loads((checkpoint / MANIFEST).read_text())["files"][file.name]
        if _sha256(file) == entry["sha256"]:
            return load_file(file)
        reason = "its sha256 is not that of the manifest"
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        reason = str(error) or type(error).__name__
    raise Problem(f"{file} is damaged ({reason}); remove {checkpoint} to go on from the checkpoint before it")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
