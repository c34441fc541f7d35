"""Released weights as run folders: from a file of SiT's, DiT's or REPA's training to a folder to sample from.

The recipe of the run states how the output of the network is used: SiT's is the velocity along the linear path, DiT's
is the noise (and the variance, where it is learnt) at the 1,000 timesteps of `DDPM`. The file contains nothing about
training, so the keys for training have no meaning, and the step is 0.

SiT and DiT have the same layers of the same names. Only the second half of the output can tell them apart: in DiT it is
the interpolation of the variance; in SiT it is not trained, so weights that are zero stay zero (`family_warning`).
REPA's file has further layers, and its time runs the other way, which `load_repa` corrects in the weights.
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
PARAMETERIZATIONS: dict[Literal["sit", "dit"], dict[str, Any]] = {
    "sit": {"path": "linear", "objective": {"kind": "matching", "predict": "velocity"}},
    "dit": {"path": "ddpm", "objective": "hybrid"},
}
DIT_WITHOUT_VARIANCE = {"kind": "matching", "predict": "noise"}
"""The objective of a DiT whose variance is not learnt."""
LATENT_CHANNELS = 4
"""The channels of the autoencoder of SiT and DiT."""


def read_weights(file: Path, family: Family, *, num_heads: int | None = None, ema: bool = True) -> SiT | DiT:
    """Return the network of a file of a family.

    Raises:
        UserError: there is no such file, or it does not have exactly the weights of such a network.
    """
    try:
        return LOADERS[family](file, num_heads=num_heads, ema=ema)
    except (ValueError, OSError) as error:
        raise UserError(str(error).replace("give num_heads", "give --num-heads")) from None


def recipe_of(network: SiT | DiT, vae: str = "auto") -> Recipe:
    """Return a recipe to sample from a network: without data, with the default sampler, without guidance.

    Args:
        network: as `read_weights` returns it.
        vae: the autoencoder that decodes states to pixels, a folder or an id, or `none`. `auto` is that of SiT and DiT
            if states have 4 channels, and `none` for 1 or 3.

    Raises:
        UserError: the number of channels fits no pixels, and no autoencoder is named.
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
        **PARAMETERIZATIONS[family],
        "data": {"kind": "absent", "shape": shape, "classes": sit.num_classes, "vae": vae},
        "backbone": backbone,
        "train": {"steps": 1, "batch": 256, "times": "grid" if family == "dit" else "uniform"},
    }
    if family == "dit" and not _learns_sigma(sit):
        parts["objective"] = DIT_WITHOUT_VARIANCE
    return recipe_from_table(parts)


def family_warning(network: SiT | DiT) -> str | None:
    """Return why weights may be of another family than named, by the second half of the output; None if they fit."""
    sit = _layers(network)
    if not _learns_sigma(sit):
        return None
    linear = sit.final_layer.linear
    rows = torch.arange(len(linear.bias)) % (2 * sit.in_channels) >= sit.in_channels  # channels vary fastest
    trained = bool(linear.weight[rows].any() or linear.bias[rows].any())
    if trained == isinstance(network, DiT):
        return None
    if trained:
        return (
            "the second half of the output is trained, as in DiT and not in SiT: if samples are noise, try --family dit"
        )
    return "the second half of the output is zero, as in SiT and not in DiT: if samples are noise, try --family sit"


def check_new_or_empty(folder: Path) -> None:
    """Raise an error unless a folder is new or empty."""
    if (folder / "recipe.json").exists():
        raise UserError(f"{folder} already has a run; give another --out")
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} cannot be written: it is a file")
        if is_occupied(folder):
            raise UserError(f"{folder} is not empty; give another --out")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None


def write_run(network: SiT | DiT, recipe: Recipe, folder: Path) -> None:
    """Write a run with one checkpoint, of step 0, into a new or empty folder. If that fails, nothing is left there.

    Raises:
        UserError: the folder is not empty or cannot be written, or the recipe's data have another shape or other
            classes than the network.
    """
    check_new_or_empty(folder)
    split = open_data(recipe.data, None)
    _check_data(network, recipe, split)
    try:
        with temporary_folder(folder) as place:
            with Run.open_for_training(place, recipe, split) as run:
                temporary = checkpoints.create_temporary(run.checkpoints, 0)
                checkpoints.write(temporary, "ema", network.state_dict())
                checkpoints.finish(temporary, recipe.model_dump(mode="json"))
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
