"""Checkpoints: folders of safetensors and JSON, each either complete or absent.

`step-00000060/` has `{part}.safetensors` for every part, the folder `trained/` if processes wrote shards of parts, the
recipe, and `manifest.json` with the size and sha256 of each file. It is prepared as `step-00000060.tmp/`.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..support.errors import UserError
from ..support.json_toml import read_json
from .files import path_inside, read_inside, sha256
from .filesystems import fsync, move_folder, remove_folder

MANIFEST = "manifest.json"
Say = Callable[[str], None]


def name(step: int) -> str:
    """Return the name of the folder of the checkpoint after a step."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def create_temporary(folder: Path, step: int) -> Path:
    """Create an empty temporary folder for the checkpoint after a step."""
    temporary = folder / f"{name(step)}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def write(temporary: Path, part: str, tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors of a part into the temporary folder of a checkpoint."""
    values = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    save_file(values, temporary / f"{part}.safetensors")


def finish(temporary: Path, recipe: Mapping[str, Any]) -> Path:
    """Turn a temporary folder that has all its parts into a checkpoint: add recipe and manifest, flush, and rename."""
    (temporary / "recipe.json").write_text(json.dumps(recipe, indent=2))
    files = {file.relative_to(temporary).as_posix(): file for file in sorted(temporary.rglob("*")) if file.is_file()}
    entries = {key: {"bytes": file.stat().st_size, "sha256": sha256(file)} for key, file in files.items()}
    for path in (*files.values(), *(path for path in temporary.rglob("*") if path.is_dir())):
        fsync(path)
    final = temporary.with_suffix("")
    (temporary / MANIFEST).write_text(json.dumps({"step": step_of(final), "files": entries}, indent=2))
    for path in (temporary / MANIFEST, temporary):
        fsync(path)
    if final.exists():  # damaged, or of steps that were trained again
        shutil.rmtree(final)
    move_folder(temporary, final, MANIFEST)
    fsync(final.parent)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first, whether intact or damaged."""
    return sorted(folder.glob("step-" + "[0-9]" * 8))


def newest(folder: Path, say: Say = lambda line: print(line, file=sys.stderr)) -> Path | None:
    """Return the newest intact checkpoint of a folder, or None; report damaged ones to `say`."""
    return newest_of(list_checkpoints(folder), say)


def newest_of(candidates: Sequence[Path], say: Say) -> Path | None:
    """Return the last intact checkpoint of a list, or None; report damaged ones to `say`."""
    for place, checkpoint in reversed([*enumerate(candidates)]):
        try:
            verify(checkpoint)
        except UserError as problem:
            say(f"{problem}; " + ("the checkpoint before it is used" if place else "there is no checkpoint before it"))
        else:
            return checkpoint
    return None


def verify(checkpoint: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        UserError: a file is missing or damaged, the manifest among them.
    """
    entries = _entries(checkpoint)
    for key in entries:
        _verified(checkpoint, key)
    for file in checkpoint.glob("*/*.safetensors"):  # sharded weights are read from all files present
        if file.relative_to(checkpoint).as_posix() not in entries:
            raise _damaged(file, f"{MANIFEST} does not list it")


def load(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """Load the tensors of a part, after its file has been compared with the manifest.

    Raises:
        UserError: the file is missing or damaged.
    """
    file = _verified(checkpoint, f"{part}.safetensors")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, str(error)) from None


def sha256_of(checkpoint: Path, part: str) -> str | None:
    """Return the sha256 of a part's file from the manifest, or None if there is no such part.

    Raises:
        UserError: the manifest is damaged.
    """
    entry = _entries(checkpoint).get(f"{part}.safetensors")
    return None if entry is None else str(entry["sha256"])


def remove_temporary(folder: Path) -> None:
    """Remove the temporary folders of interrupted saves."""
    for temporary in folder.glob("step-*.tmp"):
        shutil.rmtree(temporary, ignore_errors=True)


def prune(folder: Path, last: int, keep: int, milestone: int | Literal["none"]) -> None:
    """Remove all but the newest `keep` checkpoints up to step `last` and those whose step is a multiple of `milestone`.

    Checkpoints of later steps are damaged, since training resumed from an earlier one, and are not counted.
    """
    for checkpoint in [one for one in list_checkpoints(folder) if step_of(one) <= last][:-keep]:
        if milestone == "none" or step_of(checkpoint) % milestone:
            remove_folder(checkpoint, MANIFEST)


def mismatch_error(checkpoint: Path, error: Exception) -> UserError:
    """Return the error for weights that do not fit the network of their recipe, from what loading raised."""
    reason = " ".join(str(error).split())
    if "size mismatch for y_embedder" in reason:
        reason += (
            "; the data have other classes than in training (earlier versions counted labels without images as "
            "classes): restore the data, or fine-tune a new run with --set train.init=RUN"
        )
    return UserError(f"{checkpoint} holds another network than that of its recipe: {reason}")


def _entries(checkpoint: Path) -> dict[str, Any]:
    file = checkpoint / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(read_inside(checkpoint, MANIFEST))
        entries, step = dict(manifest["files"]), manifest["step"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(file, _reason(error)) from None
    if step != step_of(checkpoint):
        raise _damaged(file, f"it is of step {step}")
    return entries


def _verified(checkpoint: Path, key: str) -> Path:
    file = checkpoint / key
    try:
        entry = _entries(checkpoint)[key]
        path_inside(checkpoint, key)
        same = file.stat().st_size == entry["bytes"] and sha256(file) == entry["sha256"]
    except (OSError, KeyError, TypeError) as error:
        raise _damaged(file, _reason(error)) from None
    if not same:
        raise _damaged(file, f"its size or sha256 is not that of {MANIFEST}")
    return file


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _damaged(file: Path, reason: str) -> UserError:
    return UserError(f"{file} is damaged ({reason})")
