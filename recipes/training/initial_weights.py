"""Weights to start from, in place of those at random: of a released file, or of another run.

They must be of the recipe's own network. Two parts may differ, and are then as a new network has them: the table of the
labels, where there are other classes, and the positions, which follow from the size of an image.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from sitkit.backbones import DiT, SiT, state_dict

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import build_network
from ..network.convert import doubt
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import read_inside, write_atomic
from ..support.digests import digest_of
from ..support.errors import UserError
from ..support.json_toml import differences, read_json

NONE = "none"
INIT = "init.json"
"""The file in a run that says which weights it started from."""
LABELS, POSITIONS = "y_embedder.embedding_table.weight", "pos_embed"
INNER = "network."
"""What stands before the names of a DiT's weights here, and not in released files."""
METERS = "meters"
"""A part of every checkpoint of a training."""
MOST = 5
Say = Callable[[str], None]


def initial_weights(recipe: Recipe, split: Split, say: Say) -> dict[str, Tensor]:
    """Return the weights that a recipe's `train.init` names, as its network has them.

    Args:
        recipe: the experiment.
        split: its data, for their shape and classes.
        say: is told what is taken, and what is not.

    Raises:
        UserError: there are no such weights, or they are of another network.
    """
    source, network = Path(recipe.train.init), build_network(recipe, split)
    own = network.state_dict()
    if source.is_dir():
        state, classes = _of_run(Run.find(source), recipe, say)
    else:
        state, classes = _of_file(source, own, recipe), None
    weights, remarks = _fit(state, own, same_classes=classes in (None, split.classes))
    say(f"starting from the weights of {source}" + "".join(f"; {remark}" for remark in remarks))
    network.load_state_dict(weights)
    if isinstance(network, SiT | DiT) and (doubtful := doubt(network)):
        say(f"{source}: {doubtful}")
    return weights


def check_trained(run: Run) -> None:
    """Raise a problem if a run holds released weights, and nothing to go on with."""
    newest = checkpoints.list_checkpoints(run.checkpoints)[-1:]
    try:
        released = bool(newest) and checkpoints.sha256_of(newest[0], METERS) is None
    except UserError:  # it is damaged, as those who read it are told
        return
    if released:
        raise UserError(
            f"{run.folder} holds released weights, and no training to go on with: `sitkit train RECIPE --out NEW --set "
            f"train.init={run.folder}` trains another run from them; RECIPE may be {run.recipe_file}"
        )


def _of_run(run: Run, recipe: Recipe, say: Say) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Return the averaged weights of a run, and its classes if it knows them; its recipe is read, and nothing run."""
    try:
        theirs = read_json(read_inside(run.folder, run.recipe_file.name))
        backbone = dict(theirs["backbone"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"train.init = {run.folder}: its recipe cannot be read ({error})") from None
    own = recipe.model_dump(mode="json")
    known = {key: own["backbone"][key] for key in backbone if key in own["backbone"]}
    if found := differences({key: backbone[key] for key in known}, known):
        told = ", ".join(f"backbone.{key} was {one} and is {other}" for key, (one, other) in [*found.items()][:MOST])
        raise UserError(f"train.init = {run.folder} is of another network: {told}")
    for key in ("path", "objective"):
        if theirs.get(key) != own[key]:
            say(f"{run.folder} was trained with {key} {json.dumps(theirs.get(key))}")
    record = run.data_record()
    return checkpoints.load(run.latest(), "ema"), None if record is None else record.classes


def _of_file(file: Path, own: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Return the state dict in a file, averaged if there is a choice."""
    inner = INNER if all(key.startswith(INNER) for key in own) else ""
    anchor = next(key for key, value in own.items() if key.endswith("weight") and value.ndim > 1).removeprefix(inner)
    try:
        state = state_dict(file, anchor)
    except (ValueError, OSError) as error:
        raise UserError(f"train.init = {file}: {error}") from None
    if any(key.startswith("projectors.") for key in state):
        raise UserError(
            f"train.init = {file} has REPA's layers, whose time runs the other way: `sitkit convert {file} "
            "--family repa --out RUN` turns it, and train.init = RUN starts from it"
        )
    scale = getattr(recipe.backbone.fields, "time_scale", 1.0)
    if "t_embedder.mlp.0.weight" in state and scale != 1 and file.suffix != ".safetensors":
        raise UserError(
            f"train.init = {file}: released weights have backbone.time_scale = 1.0, and the recipe says {scale}; set "
            "that, or start from a run's folder, which says its own"
        )
    return {inner + key: value for key, value in state.items()}


def _fit(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], *, same_classes: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights for a network, its own where classes or positions differ, and what is to be said of that."""
    weights: dict[str, Tensor] = {}
    remarks: list[str] = []
    wrong: list[str] = []
    for key, mine in own.items():
        theirs = state.get(key)
        if key.endswith(LABELS) and (theirs is None or theirs.shape != mine.shape or not same_classes):
            count = "none" if theirs is None else f"{len(theirs) - 1:,}"
            kind = " by other names" if theirs is not None and theirs.shape == mine.shape else ""
            remarks.append(f"the label table is initialised: {count} classes there, {len(mine) - 1:,}{kind} here")
            weights[key] = mine
        elif key.endswith(POSITIONS) and theirs is not None and theirs.shape != mine.shape:
            remarks.append(f"positions are those of {mine.shape[1]:,} patches, {theirs.shape[1]:,} there")
            weights[key] = mine
        elif theirs is None:
            wrong.append(f"{key} is missing")
        elif theirs.shape != mine.shape:
            wrong.append(f"{key} is {tuple(theirs.shape)} there and {tuple(mine.shape)} here")
        else:
            weights[key] = theirs.to(mine.dtype)
    for key in state.keys() - own.keys():
        if key.endswith(LABELS):
            remarks.append("the label table is left out: there are no classes here")
        else:
            wrong.append(f"{key} has no place here")
    if wrong:
        told = "; ".join(wrong[:MOST]) + (f"; and {len(wrong) - MOST} more" if len(wrong) > MOST else "")
        raise UserError(f"train.init names weights of another network: {told}; backbone.* must be as it was there")
    return weights, remarks


def check_initial(run: Run, source: str, weights: Mapping[str, Tensor], *, write: bool = True) -> None:
    """Compare weights with those that a run has started from; write down which they are, if it starts now.

    Raises:
        UserError: they are others, or the file cannot be written.
    """
    digest = digest_of(*(part for key in sorted(weights) for part in (key, weights[key].cpu())))
    file = run.folder / INIT
    try:
        known = read_json(read_inside(run.folder, INIT))["sha256"] if file.exists() else None
        if known is None and write:
            write_atomic(file, json.dumps({"source": source, "sha256": digest}, indent=2).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be used: {error}") from None
    if known not in (None, digest):
        raise UserError(f"train.init = {source} has other weights than those that {run.folder} has started from")
