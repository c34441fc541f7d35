"""Released weights as runs: a file of SiT's, DiT's or REPA's training becomes a folder to sample from.

Its recipe says how the network is to be read: SiT's as the velocity along the straight path, DiT's as the noise (and
the variance, where that was learnt) of the 1,000 timesteps of `DDPM`. Of the training the file says nothing: neither
does the training part of the recipe, nor the step, 0.

The two families have the same layers by the same names. All that may tell them apart is the second half of their
output: in DiT it is the range of the variance; in SiT nothing trains it, and zeros stay zeros (`doubt`). REPA's has
layers beside them, and its time runs the other way, which other weights of the same network mend (`load_repa`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from sitkit.backbones import DiT, SiT, load_dit, load_repa, load_sit

from ..data.images import Split
from ..data.latents.vae import DEFAULT_VAE
from ..experiment.overrides import recipe_from_table
from ..experiment.recipe import Recipe
from ..runs.data_record import open_data
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import is_occupied, temporary_folder
from ..storage.filesystems import move_folder
from ..support.errors import UserError

Family = Literal["sit", "dit", "repa"]
LOADERS: dict[Family, Callable[..., SiT | DiT]] = {"sit": load_sit, "dit": load_dit, "repa": load_repa}
READ_AS: dict[Literal["sit", "dit"], dict[str, Any]] = {
    "sit": {"path": "linear", "objective": {"kind": "matching", "predict": "velocity"}},
    "dit": {"path": "ddpm", "objective": "hybrid"},
}
PLAIN_DIT = {"kind": "matching", "predict": "noise"}
"""Of a DiT whose variance was not learnt."""
LATENT_CHANNELS = 4
"""Of the autoencoder of SiT and DiT."""


def read_weights(file: Path, family: Family, *, num_heads: int | None = None, ema: bool = True) -> SiT | DiT:
    """Return the network of a file, as `LOADERS` of its family does.

    Raises:
        UserError: there is no such file, or the weights in it are not all, and only, those of such a network.
    """
    try:
        return LOADERS[family](file, num_heads=num_heads, ema=ema)
    except (ValueError, OSError) as error:
        raise UserError(str(error).replace("give num_heads", "give --num-heads")) from None


def recipe_of(network: SiT | DiT, vae: str = "auto") -> Recipe:
    """Return the recipe by which a network is sampled from, without data and with the usual sampler, unguided.

    Args:
        network: what `read_weights` has returned.
        vae: the autoencoder that makes pixels of states, a folder or an id, or `none`; `auto` is SiT's and DiT's for
            states of 4 channels, and none for 1 or 3.

    Raises:
        UserError: states of so many channels are no pixels, and no autoencoder is named.
    """
    family: Literal["sit", "dit"] = "dit" if isinstance(network, DiT) else "sit"
    sit = _layers(network)
    block: Any = sit.blocks[0]
    backbone = {
        "kind": family,
        "patch_size": sit.patch_size,
        "hidden_size": sit.pos_embed.shape[-1],
        "depth": len(sit.blocks),
        "num_heads": block.attn.num_heads,
        "learn_sigma": _learns_sigma(sit),
    }
    if vae == "auto":
        vae = DEFAULT_VAE if sit.in_channels == LATENT_CHANNELS else "none"
    shape = [sit.in_channels, sit.input_size, sit.input_size]
    parts = {
        **READ_AS[family],
        "data": {"kind": "absent", "shape": shape, "classes": sit.num_classes, "vae": vae},
        "backbone": backbone,
        "train": {"steps": 1, "batch": 256, "times": "grid" if family == "dit" else "uniform"},
    }
    if family == "dit" and not _learns_sigma(sit):
        parts["objective"] = PLAIN_DIT
    return recipe_from_table(parts)


def doubt(network: SiT | DiT) -> str | None:
    """Return why weights may not be of the family that was named, if the second half of the output says so."""
    sit = _layers(network)
    if not _learns_sigma(sit):
        return None
    linear = sit.final_layer.linear
    rows = torch.arange(len(linear.bias)) % (2 * sit.in_channels) >= sit.in_channels  # channels are counted fastest
    trained = bool(linear.weight[rows].any() or linear.bias[rows].any())
    if trained == isinstance(network, DiT):
        return None
    if trained:
        return "the second half of the output is not zero, as DiT's is not: if samples are noise, try --family dit"
    return "the second half of the output is zero, as SiT's is: if samples are noise, try --family sit"


def check_free(folder: Path) -> None:
    """Raise a problem unless a folder is new or empty."""
    if (folder / "recipe.json").exists():
        raise UserError(f"{folder} holds a run already; give another --out")
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} cannot be written: it is a file")
        if is_occupied(folder):
            raise UserError(f"{folder} is not empty; give another --out")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None


def write_run(network: SiT | DiT, recipe: Recipe, folder: Path) -> None:
    """Write a run of one checkpoint, after step 0, into a folder that is new or empty: whole, or not at all.

    Raises:
        UserError: there is something in the folder, it cannot be written, or the recipe's data are of another shape or
            other classes than the network's.
    """
    check_free(folder)
    split = open_data(recipe.data, None)
    _check_data(network, recipe, split)
    try:
        with temporary_folder(folder) as place:
            with Run.open_for_training(place, recipe, split) as run:
                draft = checkpoints.create_temporary(run.checkpoints, 0)
                checkpoints.write(draft, "ema", network.state_dict())
                checkpoints.finish(draft, recipe.model_dump(mode="json"))
            move_folder(place, folder, run.recipe_file.name)  # fails if another process has filled it by now
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from None


def _check_data(network: SiT | DiT, recipe: Recipe, split: Split) -> None:
    sit = _layers(network)
    wanted = ((sit.in_channels, sit.input_size, sit.input_size), sit.num_classes)
    given = (tuple(split.training.shape), len(split.classes))
    if given != wanted:
        raise UserError(
            f"data.kind = {recipe.data.kind}: the network is for states {wanted[0]} of {wanted[1]} classes, "
            f"the data have {given[0]} of {given[1]}"
        )


def _layers(network: SiT | DiT) -> SiT:
    return network.network if isinstance(network, DiT) else network


def _learns_sigma(sit: SiT) -> bool:
    return len(sit.final_layer.linear.bias) > sit.patch_size**2 * sit.in_channels
