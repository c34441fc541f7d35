"""The released weights of SiT and DiT, and checkpoints in the layout of their training scripts.

Such a file holds a state dict, or a table with state dicts under `ema` and `model` and, under `args`, an
`argparse.Namespace`. It is unpickled without running code: tensors, containers and that one class, nothing else.
"""

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .dit import DiT
from .repa import turned
from .sit import SiT

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads by width, in the published sizes (SiT, arXiv 2401.08740, table 9)."""

MOST = 6
"""How many keys a message names."""

Source = str | Path | Mapping[str, Any]


def load_sit(source: Source, *, num_heads: int | None = None, ema: bool = True) -> SiT:
    """Return the SiT whose weights these are, in evaluation mode; its sizes are read off the weights.

    Args:
        source: a file (.pt, or .safetensors), or a state dict, or a table that holds some under `ema` and `model`.
        num_heads: of the attention, which the weights do not tell; by default that of the published size of this width.
        ema: whether to take the averaged weights or the raw ones, where there is a choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, holds more than weights, or the weights are not those of a SiT.
    """
    state = _state(source, "ema" if ema else "model")
    try:
        network = SiT(**_sizes(state, num_heads))
        fits = network.load_state_dict(state, strict=False)
    except (KeyError, RuntimeError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: {said[:300]}") from None
    for what, keys in (("lacks", fits.missing_keys), ("also has", fits.unexpected_keys)):
        if keys:
            named = ", ".join(keys[:MOST]) + (f" and {len(keys) - MOST} more" if len(keys) > MOST else "")
            raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: it {what} {named}")
    return network.eval()


def load_dit(source: Source, *, num_heads: int | None = None, ema: bool = True) -> DiT:
    """Return the DiT whose weights these are, in evaluation mode; arguments and errors are those of `load_sit`."""
    return DiT(load_sit(source, num_heads=num_heads, ema=ema)).eval()


def load_repa(source: Source, *, num_heads: int | None = None, ema: bool = True) -> SiT:
    """Return the SiT that REPA's weights stand for, time and velocity turned; arguments and errors as of `load_sit`."""
    state = _state(source, "ema" if ema else "model")
    if "t_embedder.mlp.0.weight" not in state:
        raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: it lacks t_embedder.mlp.0.weight")
    return load_sit(turned(state), num_heads=num_heads)


def _state(source: Source, part: str) -> dict[str, Tensor]:
    """Return the state dict in a source."""
    table = source if isinstance(source, Mapping) else _read(Path(source))
    if "ema" in table or "model" in table:
        if part not in table:
            other = "ema" if part == "model" else "model"
            raise ValueError(f"{_name(source)} has no '{part}' weights, but '{other}': give ema={part == 'model'}")
        table = table[part]
    if not isinstance(table, Mapping) or not all(isinstance(value, Tensor) for value in table.values()):
        raise ValueError(f"{_name(source)} holds no state dict")
    return {key.removeprefix("module."): value for key, value in table.items()}


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):
            table = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, OSError, RuntimeError, EOFError, LookupError, ValueError) as error:
        raise ValueError(
            f"{file} is broken, or holds more than weights: {' '.join(str(error).split())[:300]}"
        ) from None
    if not isinstance(table, Mapping):
        raise ValueError(f"{file} holds no weights")
    return table


def _sizes(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Return the arguments of the SiT that has these weights."""
    embedding, positions = state["x_embedder.proj.weight"], state["pos_embed"]
    if (embedding.ndim, positions.ndim) != (4, 3):
        raise RuntimeError(f"its first layer is of shape {tuple(embedding.shape)}, pos_embed {tuple(positions.shape)}")
    hidden_size, in_channels, patch_size, _ = embedding.shape
    heads = num_heads or HEADS.get(hidden_size)
    if heads is None:
        raise ValueError(f"no published size has width {hidden_size}: give num_heads")
    classes = state.get("y_embedder.embedding_table.weight")
    return {
        "input_size": patch_size * round(positions.shape[1] ** 0.5),
        "patch_size": patch_size,
        "in_channels": in_channels,
        "hidden_size": hidden_size,
        "depth": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "num_heads": heads,
        "num_classes": 0 if classes is None else len(classes) - 1,
        "learn_sigma": len(state["final_layer.linear.bias"]) == 2 * patch_size**2 * in_channels,
    }


def _name(source: Source) -> str:
    return "the state dict" if isinstance(source, Mapping) else str(source)
