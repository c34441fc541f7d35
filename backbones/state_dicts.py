"""Reads state dicts from checkpoints of any layout, without running code from the file.

A checkpoint may be a state dict or nested dicts that contain state dicts, such as `ema` and `model` of the official
training scripts or `state_dict` of Lightning. The names of weights may have a prefix, such as `module.` (DDP),
`_orig_mod.` (`torch.compile`), `model.` (LightningModule) or `ema_model.`. State dicts are found by the name of one
weight that the network has, the anchor. Whatever precedes that name is the prefix of all weights.

Only tensors, numbers, strings and containers are loaded. Objects of other classes are replaced by `ForeignObject`.
"""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

MAX_DEPTH = 4
"""The maximum number of nested dicts around a state dict."""
MAX_NAMES = 6
"""The maximum number of names in a message."""
EMA_NAME = re.compile(r"(^|[^a-z])ema([^a-z]|$)|^ema|averag", re.IGNORECASE)
"""The pattern of the names of EMA weights."""
READ_ERRORS = (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""Further exceptions that damaged files cause."""
CLASS_NAME = re.compile(r"GLOBAL ([\w.]+)")
"""The pattern of the class name in the message of an `UnpicklingError`."""
OTHER_FORMATS = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS instead of the file itself: run `git lfs pull` to fetch it",
    ),
    (b"<!doctype html", "is a web page that was saved under this name: download the file itself"),
    (b"<html", "is a web page that was saved under this name: download the file itself"),
    (b"<?xml", "is XML, such as a server's message of an error: download the file itself"),
    (b"{", "is JSON: name the file of the weights themselves"),
)


class _UnsafeFileError(Exception):
    """The file contains an object that is not loaded."""


class ForeignObject:
    """A placeholder for an object whose class is not loaded. `class_name` is the name of that class."""

    class_name = ""

    def __init__(self, *_: Any, **__: Any):
        """Ignore the arguments of the object."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the state of the object."""


@dataclass(frozen=True)
class StateDict:
    """A state dict in a checkpoint."""

    keys: tuple[str, ...]
    """The keys of the nested dicts that lead to it."""
    prefix: str
    """The common prefix of the names of its weights."""
    weights: Mapping[str, Any]
    """The weights, by their names without the prefix."""

    @property
    def is_ema(self) -> bool:
        """Whether these are EMA weights, according to the keys or the prefix."""
        return any(EMA_NAME.search(name) for name in (*self.keys, *self.prefix.split(".")))

    def __str__(self) -> str:
        return ".".join((*self.keys, self.prefix.removesuffix("."))).strip(".") or "the whole"


def state_dict(source: str | Path | Mapping[str, Any], anchor: str, *, ema: bool = True) -> dict[str, Tensor]:
    """Return the state dict of a network from a checkpoint, without a prefix of the names.

    Args:
        source: a file, of `torch.save` or safetensors, or a dict.
        anchor: the name of a weight that the network has.
        ema: whether to return EMA weights or raw weights, if the checkpoint contains both.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is broken or not a file of weights, or it contains no or several matching state dicts.
    """
    name = "the state dict" if isinstance(source, Mapping) else str(source)
    checkpoint = source if isinstance(source, Mapping) else read(Path(source))
    candidates = [*_find_state_dicts(checkpoint, anchor)]
    matching, others = ([each for each in candidates if each.is_ema == kind] for kind in (ema, not ema))
    if not matching and others:
        if not ema:
            raise ValueError(f"{name} has no 'model' weights, but '{others[0]}': give ema=True")
        if others[0].keys[-1:] == ("model",):
            raise ValueError(f"{name} has no 'ema' weights, but 'model': give ema=False")
    chosen = matching or others
    if not chosen:
        raise ValueError(f"{name} {_explain_absence(checkpoint, anchor)}")
    if len(chosen) > 1:
        raise ValueError(f"{name} has several state dicts: {', '.join(map(str, chosen))}: save only the one to load")
    for key, value in chosen[0].weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} holds no state dict: {key} is {_type_of(value)}")
    return dict(chosen[0].weights)


def read(file: Path) -> Any:
    """Return the content of a file of `torch.save` or safetensors, with a `ForeignObject` for each unsafe object.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is broken or not a file of weights.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if not head:
        raise ValueError(f"{file} is broken: it is empty")
    for start, description in OTHER_FORMATS:
        if head.lstrip().lower().startswith(start):
            raise ValueError(f"{file} {description}")
    if (
        len(head) > 2 and head.isascii() and "".join(head.decode().split()).isprintable()
    ):  # the first 2 bytes of a zip file are text
        raise ValueError(f"{file} is text: name a file of weights, as written by torch.save or safetensors")
    try:
        if head[8:9] == b"{" or (file.suffix == ".safetensors" and not head.startswith(b"PK")):
            return load_file(file)
        return _unpickle(file)
    except _UnsafeFileError as error:
        raise ValueError(f"{file} {error}") from None
    except (SafetensorError, pickle.UnpicklingError, OSError, *READ_ERRORS) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        why = "" if isinstance(error, pickle.UnpicklingError | OSError) else f" ({reason})"
        raise ValueError(f"{file} is broken, or contains more than weights: copy or download it again{why}") from None


def _unpickle(file: Path) -> Any:
    """Return the content of a file of `torch.save`, with placeholders for objects of other classes.

    Raises:
        _UnsafeFileError: the file contains an object for which there can be no placeholder.
    """
    try:
        foreign = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # a file of an old format, whose classes are not listed
        foreign = set()
    known: dict[str, Any] = {"argparse.Namespace": argparse.Namespace, "collections.defaultdict": _new_dict}
    placeholders = {name: type("Foreign", (ForeignObject,), {"class_name": name}) for name in foreign - known.keys()}
    with torch.serialization.safe_globals([(made, name) for name, made in (known | placeholders).items()]):
        try:
            with file.open("rb") as stream:  # given a name, torch might read it as safetensors
                return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # an object without a possible placeholder, or damage
            names = [*CLASS_NAME.findall(str(error)), *sorted(placeholders)]
            if names:
                raise _UnsafeFileError(_unsafe_class(names[0])) from None
            raise


def _new_dict(*_: Any) -> dict[Any, Any]:
    """Return an empty dict, which replaces a defaultdict."""
    return {}


def _find_state_dicts(checkpoint: Any, anchor: str, keys: tuple[str, ...] = ()) -> Iterator[StateDict]:
    """Yield the state dicts in a dict and in the dicts nested in it."""
    if not isinstance(checkpoint, Mapping) or len(keys) > MAX_DEPTH:
        return
    entries = {key: value for key, value in checkpoint.items() if isinstance(key, str)}
    prefixes = [key.removesuffix(anchor) for key in entries if key == anchor or key.endswith(f".{anchor}")]
    for prefix in prefixes:
        longer = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        own = {key: value for key, value in entries.items() if key.startswith(prefix) and not key.startswith(longer)}
        yield StateDict(keys, prefix, {key.removeprefix(prefix): value for key, value in own.items()})
    for key, value in checkpoint.items():
        yield from _find_state_dicts(value, anchor, (*keys, str(key)))


def _explain_absence(checkpoint: Any, anchor: str) -> str:
    """Return the reason why a checkpoint contains no matching state dict, as the end of a sentence."""
    if not isinstance(checkpoint, Mapping):
        return _unsafe_class(checkpoint.class_name) if isinstance(checkpoint, ForeignObject) else "holds no weights"
    leaves = [*_leaves(checkpoint)]
    names = [key for key, value in leaves if isinstance(value, Tensor)]
    for value in checkpoint.values():
        if isinstance(value, ForeignObject) and not names:
            return _unsafe_class(value.class_name)
    if not names:
        return "holds no state dict"
    listed = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    return f"does not hold the weights of such a network: it lacks {anchor}, and has {listed}"


def _leaves(table: Mapping[Any, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested dicts that are not dicts, with their innermost keys."""
    for key, value in table.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _leaves(value, depth + 1)
        else:
            yield str(key), value


def _type_of(value: Any) -> str:
    return f"of class {value.class_name}" if isinstance(value, ForeignObject) else f"a {type(value).__name__}"


def _unsafe_class(name: str) -> str:
    return (
        f"holds an object of class {name}, which is not loaded because it could run code: where the class is "
        "available, save the weights alone by torch.save(network.state_dict(), FILE)"
    )
