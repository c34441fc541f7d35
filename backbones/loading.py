"""Loads weights of SiT, DiT and REPA: the released files, and checkpoints in other layouts (`state_dicts.py`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .dit import DiT
from .repa import convert_repa
from .sit import SiT
from .state_dicts import MAX_NAMES, state_dict

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""The number of attention heads of the published sizes, by width (SiT, arXiv 2401.08740, table 9)."""

ANCHOR = "x_embedder.proj.weight"
"""The name of a weight that all of these networks have."""

Source = str | Path | Mapping[str, Any]


def load_sit(source: Source, *, num_heads: int | None = None, ema: bool = True) -> SiT:
    """Load a SiT, in evaluation mode. Its sizes are inferred from the weights.

    Args:
        source: a file, of `torch.save` or safetensors; a state dict; or a dict that contains state dicts, such as
            `ema` and `model`. Prefixes that wrappers add to the names of weights are removed.
        num_heads: the number of attention heads, which cannot be inferred. Default: that of the published size of the
            same width.
        ema: whether to load the EMA weights or the raw weights, if the source contains both.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is broken or not a file of weights, or the weights are not exactly those of a SiT.
    """
    state = _state(source, ema)
    try:
        network = SiT(**_sizes(state, num_heads))
        result = network.load_state_dict(state, strict=False)
    except (KeyError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: {reason[:300]}") from None
    for verb, keys in (("lacks", result.missing_keys), ("also has", result.unexpected_keys)):
        if keys:
            names = ", ".join(keys[:MAX_NAMES]) + (
                f" and {len(keys) - MAX_NAMES} more" if len(keys) > MAX_NAMES else ""
            )
            raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: it {verb} {names}")
    return network.eval()


def load_dit(source: Source, *, num_heads: int | None = None, ema: bool = True) -> DiT:
    """Load a DiT, in evaluation mode. Arguments and errors are those of `load_sit`."""
    return DiT(load_sit(source, num_heads=num_heads, ema=ema)).eval()


def load_repa(source: Source, *, num_heads: int | None = None, ema: bool = True) -> SiT:
    """Load REPA's SiT, converted to time from noise to data. Arguments and errors are those of `load_sit`."""
    state = _state(source, ema)
    if "t_embedder.mlp.0.weight" not in state:
        raise ValueError(f"{_name(source)} does not hold the weights of a SiT or DiT: it lacks t_embedder.mlp.0.weight")
    return load_sit(convert_repa(state), num_heads=num_heads)


def _state(source: Source, ema: bool) -> dict[str, Tensor]:
    """Return the state dict of a SiT or DiT in a source."""
    try:
        return state_dict(source, ANCHOR, ema=ema)
    except ValueError as error:
        raise ValueError(str(error).replace("such a network", "a SiT or DiT")) from None


def _sizes(state: Mapping[str, Tensor], num_heads: int | None) -> dict[str, Any]:
    """Return the arguments of the SiT with these weights."""
    embedding, positions = state["x_embedder.proj.weight"], state["pos_embed"]
    if (embedding.ndim, positions.ndim) != (4, 3):
        raise RuntimeError(f"its first layer has shape {tuple(embedding.shape)} and pos_embed {tuple(positions.shape)}")
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
