"""Checkpoints: folders of safetensors and JSON, either whole or not there.

`step-00000060/` has `{part}.safetensors` for every part, the folder `trained/` if processes wrote pieces of some, the
recipe, and `manifest.json` with the size and sha256 of each file. It is built as `step-00000060.tmp/`.
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
    """Return the name of the checkpoint after a step."""
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def create_temporary(folder: Path, step: int) -> Path:
    """Return an empty draft of the checkpoint after a step."""
    draft = folder / f"{name(step)}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def write(draft: Path, part: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a part into a draft."""
    values = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    save_file(values, draft / f"{part}.safetensors")


def finish(draft: Path, recipe: Mapping[str, Any]) -> Path:
    """Make a checkpoint of a draft that has all its parts: recipe and manifest, on the disk, by its name."""
    (draft / "recipe.json").write_text(json.dumps(recipe, indent=2))
    files = {file.relative_to(draft).as_posix(): file for file in sorted(draft.rglob("*")) if file.is_file()}
    entries = {key: {"bytes": file.stat().st_size, "sha256": sha256(file)} for key, file in files.items()}
    for path in (*files.values(), *(path for path in draft.rglob("*") if path.is_dir())):
        fsync(path)
    final = draft.with_suffix("")
    (draft / MANIFEST).write_text(json.dumps({"step": step_of(final), "files": entries}, indent=2))
    for path in (draft / MANIFEST, draft):
        fsync(path)
    if final.exists():  # damaged, or of steps that are trained again
        shutil.rmtree(final)
    move_folder(draft, final, MANIFEST)
    fsync(final.parent)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the oldest first."""
    return sorted(folder.glob("step-" + "[0-9]" * 8))


def newest(folder: Path, say: Say = lambda line: print(line, file=sys.stderr)) -> Path | None:
    """Return the newest checkpoint of which every file is as it was written, or None; the damaged are said."""
    return newest_of(list_checkpoints(folder), say)


def newest_of(candidates: Sequence[Path], say: Say) -> Path | None:
    """Return the last of some checkpoints of which every file is as it was written, or None; the damaged are said."""
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
    for file in checkpoint.glob("*/*.safetensors"):  # sharded weights are read from all that there are
        if file.relative_to(checkpoint).as_posix() not in entries:
            raise _damaged(file, f"{MANIFEST} does not tell of it")


def load(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """Return the tensors of a part, after its file has been compared with the manifest.

    Raises:
        UserError: the file is missing or damaged.
    """
    file = _verified(checkpoint, f"{part}.safetensors")
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise _damaged(file, str(error)) from None


def sha256_of(checkpoint: Path, part: str) -> str | None:
    """Return the sha256 of a part's file, as the manifest has it; None if there is no such part.

    Raises:
        UserError: the manifest is damaged.
    """
    entry = _entries(checkpoint).get(f"{part}.safetensors")
    return None if entry is None else str(entry["sha256"])


def remove_temporary(folder: Path) -> None:
    """Remove what a save left that was cut short."""
    for draft in folder.glob("step-*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)


def prune(folder: Path, last: int, keep: int, milestone: int | Literal["none"]) -> None:
    """Remove all but the newest `keep` checkpoints up to step `last` and those whose step is a multiple of `milestone`.

    Later ones are damaged, or training would have gone on from them: they are not counted among those that are kept.
    """
    for checkpoint in [one for one in list_checkpoints(folder) if step_of(one) <= last][:-keep]:
        if milestone == "none" or step_of(checkpoint) % milestone:
            remove_folder(checkpoint, MANIFEST)


def mismatch_error(checkpoint: Path, error: Exception) -> UserError:
    """Return the problem of weights that are not those of a recipe's network, by what their loading raised."""
    reason = " ".join(str(error).split())
    if "size mismatch for y_embedder" in reason:
        reason += (
            "; the data have other classes than those that it was trained on (labels without images, which earlier "
            "versions counted, are none): restore the data, or fine-tune a new run by --set train.init=RUN"
        )
    return UserError(f"{checkpoint} holds another network than its recipe's: {reason}")


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
