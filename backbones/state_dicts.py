"""State dicts in files and tables as others lay them out, read without running code.

A file may hold a state dict, or tables around it: `ema` and `model` of the official training scripts, `state_dict` of
Lightning and many others, and whatever a wrapper puts before each name (`module.` of DDP, `_orig_mod.` of
`torch.compile`, `model.` of a LightningModule, `ema_model.`, ...). A state dict is found by a weight that it must have:
what stands before that weight's name stands before all. Objects that are no tensors, numbers, strings or containers
are never made: what has their class in the file is passed over.
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

DEEPEST = 4
"""How many tables may lie around a state dict."""
MOST = 6
"""How many names a message has."""
AVERAGED = re.compile(r"(^|[^a-z])ema([^a-z]|$)|^ema|averag", re.IGNORECASE)
"""How averaged weights are known by the names around them."""
UNREADABLE = (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError)
"""What reading a damaged file raises besides."""
FOREIGN = re.compile(r"GLOBAL ([\w.]+)")
NOT_WEIGHTS = (
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS, and not the file that it stands for: `git lfs pull` fetches it",
    ),
    (b"<!doctype html", "is a web page that was saved under this name: download the file itself"),
    (b"<html", "is a web page that was saved under this name: download the file itself"),
    (b"<?xml", "is XML, such as a server's message of an error: download the file itself"),
    (b"{", "is JSON: name the file of the weights themselves"),
)


class _Refused(Exception):
    """The file holds what is not loaded."""


class Foreign:
    """What stands for an object of a class that is not loaded; `named` is that class."""

    named = ""

    def __init__(self, *_: Any, **__: Any):
        """Take what the object would be made of, and forget it."""

    def __setstate__(self, state: Any) -> None:
        """Forget it."""


@dataclass(frozen=True)
class Found:
    """A state dict: the names of the tables that lead to it, what stands before the names of weights, and these."""

    tables: tuple[str, ...]
    prefix: str
    weights: Mapping[str, Any]

    @property
    def is_average(self) -> bool:
        """Whether names say that these are averaged weights."""
        return any(AVERAGED.search(word) for word in (*self.tables, *self.prefix.split(".")))

    def __str__(self) -> str:
        return ".".join((*self.tables, self.prefix.removesuffix("."))).strip(".") or "the whole"


def state_dict(source: str | Path | Mapping[str, Any], anchor: str, *, ema: bool = True) -> dict[str, Tensor]:
    """Return the state dict in a source, names as its network has them.

    Args:
        source: a file (of `torch.save`, or safetensors), or a table.
        anchor: the name of a weight that the network has.
        ema: whether to take averaged weights or raw ones, where names tell them apart.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or no file of weights, there is no such state dict, or there are several.
    """
    name = "the state dict" if isinstance(source, Mapping) else str(source)
    table = source if isinstance(source, Mapping) else read(Path(source))
    found = [*_find(table, anchor)]
    wanted, others = ([one for one in found if one.is_average == what] for what in (ema, not ema))
    if not wanted and others:
        if not ema:
            raise ValueError(f"{name} has no 'model' weights, but '{others[0]}': give ema=True")
        if others[0].tables[-1:] == ("model",):
            raise ValueError(f"{name} has no 'ema' weights, but 'model': give ema=False")
    chosen = wanted or others
    if not chosen:
        raise ValueError(f"{name} {_nothing(table, anchor)}")
    if len(chosen) > 1:
        raise ValueError(f"{name} has several state dicts: {', '.join(map(str, chosen))}: save the one that is meant")
    for key, value in chosen[0].weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} holds no state dict: {key} is {_kind(value)}")
    return dict(chosen[0].weights)


def read(file: Path) -> Any:
    """Return what a file of `torch.save` or safetensors holds, with a `Foreign` for each object of another class.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or no file of weights.
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
    for start, said in NOT_WEIGHTS:
        if head.lstrip().lower().startswith(start):
            raise ValueError(f"{file} {said}")
    if len(head) > 2 and head.isascii() and "".join(head.decode().split()).isprintable():  # 2: the PK of a cut zip
        raise ValueError(f"{file} is text: name a file of weights, as torch.save and safetensors write them")
    try:
        if head[8:9] == b"{" or (file.suffix == ".safetensors" and not head.startswith(b"PK")):
            return load_file(file)
        return _unpickle(file)
    except _Refused as error:
        raise ValueError(f"{file} {error}") from None
    except (SafetensorError, pickle.UnpicklingError, OSError, *UNREADABLE) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
        why = "" if isinstance(error, pickle.UnpicklingError | OSError) else f" ({reason})"
        raise ValueError(f"{file} is broken, or holds more than weights: copy or download it again{why}") from None


def _unpickle(file: Path) -> Any:
    try:
        foreign = set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except (ValueError, RuntimeError, pickle.UnpicklingError):  # of an old layout: what it names is met below
        foreign = set()
    known: dict[str, Any] = {"argparse.Namespace": argparse.Namespace, "collections.defaultdict": _plain}
    stand_ins = {name: type("Foreign", (Foreign,), {"named": name}) for name in foreign - known.keys()}
    with torch.serialization.safe_globals([(made, name) for name, made in (known | stand_ins).items()]):
        try:
            with file.open("rb") as stream:  # by its name, torch would take it for safetensors
                return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # an object that no stand-in can be made for, or damage
            named = [*FOREIGN.findall(str(error)), *sorted(stand_ins)]
            if named:
                raise _Refused(_refused(named[0])) from None
            raise


def _plain(*_: Any) -> dict[Any, Any]:
    """Return the table that stands for a defaultdict."""
    return {}


def _find(table: Any, anchor: str, tables: tuple[str, ...] = ()) -> Iterator[Found]:
    """Yield the state dicts in a table and in the tables in it."""
    if not isinstance(table, Mapping) or len(tables) > DEEPEST:
        return
    named = {key: value for key, value in table.items() if isinstance(key, str)}
    prefixes = [key.removesuffix(anchor) for key in named if key == anchor or key.endswith(f".{anchor}")]
    for prefix in prefixes:
        others = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
        own = {key: value for key, value in named.items() if key.startswith(prefix) and not key.startswith(others)}
        yield Found(tables, prefix, {key.removeprefix(prefix): value for key, value in own.items()})
    for key, value in table.items():
        yield from _find(value, anchor, (*tables, str(key)))


def _nothing(table: Any, anchor: str) -> str:
    """Return why there is no state dict in a table, in words."""
    if not isinstance(table, Mapping):
        return _refused(table.named) if isinstance(table, Foreign) else "holds no weights"
    for value in table.values():
        if isinstance(value, Foreign) and not any(isinstance(one, Tensor) for one in _leaves(table)):
            return _refused(value.named)
    names = [key for key, value in _named(table) if isinstance(value, Tensor)]
    if not names:
        return "holds no state dict"
    few = ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
    return f"does not hold the weights of such a network: it lacks {anchor}, and has {few}"


def _named(table: Mapping[Any, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and depth < DEEPEST:
            yield from _named(value, depth + 1)
        else:
            yield str(key), value


def _leaves(table: Mapping[Any, Any]) -> Iterator[Any]:
    return (value for _, value in _named(table))


def _kind(value: Any) -> str:
    return f"of class {value.named}" if isinstance(value, Foreign) else f"a {type(value).__name__}"


def _refused(named: str) -> str:
    return (
        f"holds an object of class {named}, which is not loaded, as it could run code: where that class is at hand, "
        "save the weights alone, torch.save(network.state_dict(), FILE)"
    )
