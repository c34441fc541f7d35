"""Pretrained weights to start from: of a released file, or of another run.

They must be of the recipe's network. Two parts may differ, and are then initialised as in a new network: the label
table, if there are other classes, and the position table, which depends on the size of images.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from sitkit.backbones import DiT, SiT, state_dict

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import build_network
from ..network.convert import family_warning
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import read_inside, write_atomic
from ..support.digests import digest_of
from ..support.errors import UserError
from ..support.json_toml import differences, read_json

NONE = "none"
INIT = "init.json"
"""The file of a run with the source and digest of the weights it started from."""
LABELS, POSITIONS = "y_embedder.embedding_table.weight", "pos_embed"
INNER = "network."
"""The prefix of the names of a DiT's weights here, which released files do not have."""
METERS = "meters"
"""A part of every checkpoint that training writes."""
MOST_DIFFERENCES = 5
"""In an error."""
Say = Callable[[str], None]


def initial_weights(recipe: Recipe, split: Split, say: Say) -> dict[str, Tensor]:
    """Return the weights of a recipe's `train.init` as a state dict of its network.

    Args:
        recipe: the experiment.
        split: its data, for their shape and classes.
        say: is called with each line of output.

    Raises:
        UserError: there are no such weights, or they are of another network.
    """
    source, network = Path(recipe.train.init), build_network(recipe, split)
    initial = network.state_dict()
    if source.is_dir():
        state, classes = _of_run(Run.find(source), recipe, say)
    else:
        state, classes = _of_file(source, initial, recipe), None
    weights, remarks = _fit(state, initial, same_classes=classes in (None, split.classes))
    say(f"starting from the weights of {source}" + "".join(f"; {remark}" for remark in remarks))
    network.load_state_dict(weights)
    if isinstance(network, SiT | DiT) and (warning := family_warning(network)):
        say(f"{source}: {warning}")
    return weights


def check_trained(run: Run) -> None:
    """Raise an error if a run has released weights, from which training cannot be resumed."""
    newest = checkpoints.list_checkpoints(run.checkpoints)[-1:]
    try:
        released = bool(newest) and checkpoints.sha256_of(newest[0], METERS) is None
    except UserError:  # it is damaged, which raises an error where it is loaded
        return
    if released:
        raise UserError(
            f"{run.folder} has released weights, and no training to resume: `sitkit train RECIPE --out NEW --set "
            f"train.init={run.folder}` trains another run from them; RECIPE may be {run.recipe_file}"
        )


def _of_run(run: Run, recipe: Recipe, say: Say) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """Return the EMA weights of a run, and its classes if they are recorded. Code that its recipe names is not run."""
    try:
        loaded = read_json(read_inside(run.folder, run.recipe_file.name))
        backbone = dict(loaded["backbone"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"train.init = {run.folder}: its recipe cannot be read ({error})") from None
    new = recipe.model_dump(mode="json")
    known = {key: new["backbone"][key] for key in backbone if key in new["backbone"]}
    if found := differences({key: backbone[key] for key in known}, known):
        listed = ", ".join(
            f"backbone.{key} was {one} and is {other}" for key, (one, other) in [*found.items()][:MOST_DIFFERENCES]
        )
        raise UserError(f"train.init = {run.folder} is of another network: {listed}")
    for key in ("path", "objective"):
        if loaded.get(key) != new[key]:
            say(f"{run.folder} was trained with {key} {json.dumps(loaded.get(key))}")
    record = run.data_record()
    return checkpoints.load(run.latest(), "ema"), None if record is None else record.classes


def _of_file(file: Path, initial: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Return the state dict in a file, that of the EMA if there are several."""
    inner = INNER if all(key.startswith(INNER) for key in initial) else ""
    anchor = next(key for key, value in initial.items() if key.endswith("weight") and value.ndim > 1).removeprefix(
        inner
    )
    try:
        state = state_dict(file, anchor)
    except (ValueError, OSError) as error:
        raise UserError(f"train.init = {file}: {error}") from None
    if any(key.startswith("projectors.") for key in state):
        raise UserError(
            f"train.init = {file} is of REPA, whose time runs the other way: `sitkit convert {file} --family repa "
            "--out RUN` converts it; then set train.init = RUN"
        )
    scale = getattr(recipe.backbone.fields, "time_scale", 1.0)
    if "t_embedder.mlp.0.weight" in state and scale != 1 and file.suffix != ".safetensors":
        raise UserError(
            f"train.init = {file}: released weights have backbone.time_scale = 1.0, and the recipe has {scale}; set it "
            "to 1.0, or start from a run folder, whose recipe states it"
        )
    return {inner + key: value for key, value in state.items()}


def _fit(
    state: Mapping[str, Tensor], initial: Mapping[str, Tensor], *, same_classes: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights for a network, initialised ones where classes or positions differ, and remarks about these."""
    weights: dict[str, Tensor] = {}
    remarks: list[str] = []
    wrong: list[str] = []
    for key, value in initial.items():
        loaded = state.get(key)
        if key.endswith(LABELS) and (loaded is None or loaded.shape != value.shape or not same_classes):
            count = "none" if loaded is None else f"{len(loaded) - 1:,}"
            kind = " by other names" if loaded is not None and loaded.shape == value.shape else ""
            remarks.append(f"the label table is initialised: {count} classes there, {len(value) - 1:,}{kind} here")
            weights[key] = value
        elif key.endswith(POSITIONS) and loaded is not None and loaded.shape != value.shape:
            remarks.append(f"positions are those of {value.shape[1]:,} patches, {loaded.shape[1]:,} there")
            weights[key] = value
        elif loaded is None:
            wrong.append(f"{key} is missing")
        elif loaded.shape != value.shape:
            wrong.append(f"{key} is {tuple(loaded.shape)} there and {tuple(value.shape)} here")
        else:
            weights[key] = loaded.to(value.dtype)
    for key in state.keys() - initial.keys():
        if key.endswith(LABELS):
            remarks.append("the label table is left out: there are no classes here")
        else:
            wrong.append(f"{key} has no place here")
    if wrong:
        listed = "; ".join(wrong[:MOST_DIFFERENCES]) + (
            f"; and {len(wrong) - MOST_DIFFERENCES} more" if len(wrong) > MOST_DIFFERENCES else ""
        )
        raise UserError(f"train.init names weights of another network: {listed}; set backbone.* as it was there")
    return weights, remarks


def check_initial(run: Run, source: str, weights: Mapping[str, Tensor], *, write: bool = True) -> None:
    """Compare weights with those that a run started from; record their digest if it starts now.

    Raises:
        UserError: they differ, or the file cannot be written.
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
        raise UserError(f"train.init = {source} has other weights than those that {run.folder} started from")
