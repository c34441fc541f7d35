"""The released weights of SiT and DiT, and checkpoints of whoever trained such networks (`files.py`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .dit import DiT
from .files import MOST, state_dict
from .repa import turned
from .sit import SiT

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads by width, in the published sizes (SiT, arXiv 2401.08740, table 9)."""

ANCHOR = "x_embedder.proj.weight"
"""A weight that all of these networks have."""

Source = str | Path | Mapping[str, Any]


def load_sit(source: Source, *, num_heads: int | None = None, ema: bool = True) -> SiT:
    """Return the SiT whose weights these are, in evaluation mode; its sizes are read off the weights.

    Args:
        source: a file (of `torch.save`, or safetensors), or a state dict, or a table that holds some, such as one under
            `ema` and one under `model`; what wrappers put before the names of weights is taken off.
        num_heads: of the attention, which the weights do not tell; by default that of the published size of this width.
        ema: whether to take the averaged weights or the raw ones, where there is a choice.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken or no file of weights, or the weights are not, or not only, those of a SiT.
    """
    state = _state(source, ema)
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
    state = _state(source, ema)
    if "t_embedder.mlp.0.weight" not in state:
        raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: it lacks t_embedder.mlp.0.weight")
    return load_sit(turned(state), num_heads=num_heads)


def _state(source: Source, ema: bool) -> dict[str, Tensor]:
    """Return the state dict in a source."""
    try:
        return state_dict(source, ANCHOR, ema=ema)
    except ValueError as error:
        raise ValueError(str(error).replace("such a network", "a SiT or DiT")) from None


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
