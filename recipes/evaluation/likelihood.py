"""How probable held-out images are under the ODE of a trained network, in bits per dimension."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sitkit.samplers import Field

from ..data.fingerprint import cache_key
from ..data.images import Split, to_pixels
from ..experiment.auto_values import velocity_interval
from ..experiment.recipe import Recipe
from ..network.build import all_channels, load_network
from ..runs.run import Run
from ..storage import checkpoints
from ..storage.files import write_atomic
from ..storage.work_partition import WorkPartition
from ..support.environment import versions
from ..support.errors import UserError
from .bits_per_dim import SOLVER, BatchBits, BitsEstimator, BitsStore, batches, collect, measure

SIGNS = "Philox 4x32-10, domain 3"
"""What makes the signs of probes; journals of other signs, which do not say, are left alone."""
EXACT_UP_TO = 256
"""Numbers in an image, above which the divergence is estimated unless the number of probes is given."""
MEANING = (
    "over images: it contains the chance of dequantisation and of probes, both of which are drawn once for each image"
)
PARTS = ("data", "path", "objective", "backbone")
"""The parts of a recipe that bits depend on, besides the weights."""


def likelihood(
    run: Run,
    recipe: Recipe,
    device: torch.device,
    *,
    num: int,
    probes: int | None,
    seed: int,
    batch: int,
    average: str = "ema",
    rtol: float = 1e-5,
    atol: float = 1e-6,
    say: Callable[[str], None],
) -> None:
    """Measure a run's newest checkpoint on held-out images, write `likelihood.json`, and tell of it.

    The network is asked for the image's own class, without guidance. Every batch's bits are kept in the folder
    `likelihood` as they are found, under a name made of all that they depend on (`bits.Kept`): called again, it goes on
    with those that are missing, and with more images it adds theirs. Images on the disk are known by the state of their
    files (`data.fingerprint`): once any of them was written, all are measured again.

    Under torchrun, or with RANK and WORLD_SIZE set, each process takes its part of the work. On GPUs, the process with
    LOCAL_RANK k uses GPU k of its machine.

    Args:
        run: the run.
        recipe: its recipe.
        device: where to compute.
        num: how many images, from the first; all if there are fewer.
        probes: of the divergence's estimate; 0 is the exact one, None the exact one for small images.
        seed: of dequantisation and probes.
        batch: images at once, see `bits` for what depends on them.
        average: which average of the weights.
        rtol: the error allowed of a step of the solver, relative.
        atol: the same, absolute.
        say: is told of the result; by process 0 only.

    Raises:
        UserError: the data have no pixels or none held out, there is no good checkpoint, the ODE cannot be solved, the
            folder cannot be written, or other processes do not answer.
    """
    partition = WorkPartition.from_environment()
    device = partition.device(device)
    split = run.data(recipe, heldout=True)
    num = min(num, _held_out(split))
    checkpoint = run.latest()
    network = load_network(recipe, split, checkpoint, device, average)
    high_to_low = velocity_interval(recipe)[::-1]
    probes = (0 if math.prod(split.heldout.shape) <= EXACT_UP_TO else 1) if probes is None else probes
    how = BitsEstimator(high_to_low, probes, seed, rtol, atol)
    of_batches = {
        "checkpoint": checkpoint.name,
        "average": average,
        "average sha256": _sha256(checkpoint, average, network),
        **asdict(how),
        **({"signs": SIGNS} if probes else {}),
        "solver": SOLVER,
        "batch": batch,
    }
    parts = batches(num, batch)
    kept = _keep(run.folder / "likelihood", of_batches, recipe, split, partition)
    measure(_velocities(network, recipe, split), split.heldout, parts, how, kept, device, partition)
    if not partition.is_main:
        return
    found = collect(parts, kept, partition)
    kept.settle()
    report = _report(found, split) | of_batches | {"probes": probes or "exact"}
    report["versions"] = versions() | {"torchdiffeq": version("torchdiffeq")}
    file = run.folder / "likelihood.json"
    try:
        write_atomic(file, json.dumps(report, indent=2).encode())
    except OSError as error:
        raise UserError(f"{run.folder} cannot be written: {error.strerror}") from error
    spread = "" if report["standard error"] is None else f" +- {report['standard error']:.4f}"
    say(
        f"{report['bits per dimension']:.4f}{spread} bits per dimension on {num} held-out images, "
        f"{report['network calls a batch']:.0f} network calls a batch: {file}"
    )


def _held_out(split: Split) -> int:
    """Return how many held-out images there are.

    Raises:
        UserError: there are none, or the states of the network are not their pixels.
    """
    count = len(split.heldout)  # of absent data a problem of its own
    if split.decode is not to_pixels:
        raise UserError(
            "bits per dimension are those of pixels, and this run's network sees latents, whose density says nothing "
            "of that of pixels: train on pixels for a likelihood, or measure samples with `sitkit evaluate`"
        )
    if not count:
        raise UserError("this run's data hold out no images to measure: data.heldout or data.split name some")
    return count


def _velocities(network: nn.Module, recipe: Recipe, split: Split) -> Callable[[Tensor], Field]:
    """Return the network's velocities, by the labels of images."""
    objective = recipe.objective.build(path=recipe.path.build())
    model = all_channels(network, objective)

    def velocity_of(labels: Tensor) -> Field:
        velocity: Field = objective.field(partial(model, y=labels) if split.classes else model)
        return velocity

    return velocity_of


def _keep(
    folder: Path, of_batches: Mapping[str, Any], recipe: Recipe, split: Split, partition: WorkPartition
) -> BitsStore:
    """Return where to keep bits, under a name made of all that they depend on, which `KEY.json` spells out."""
    dumped = recipe.model_dump(mode="json")
    everything = {
        **of_batches,
        "recipe": {part: dumped[part] for part in PARTS},
        "classes": split.classes,
        "images": cache_key(split.heldout),
        "sitkit": version("sitkit"),
    }
    content = json.dumps(everything, indent=2, sort_keys=True).encode()
    kept = BitsStore(folder, hashlib.sha256(content).hexdigest()[:16])
    try:
        folder.mkdir(exist_ok=True)
        if partition.is_main:
            write_atomic(folder / f"{kept.key}.json", content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return kept


def _sha256(checkpoint: Path, average: str, network: nn.Module) -> str:
    """Return the sha256 of an average's file, or of its tensors if it was made of several files."""
    return checkpoints.sha256_of(checkpoint, average) or _digest(network.state_dict().values())


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _report(found: list[BatchBits], split: Split) -> dict[str, Any]:
    """Return what the numbers of all images come to."""
    bits = torch.tensor([one for part in found for one in part.bits], dtype=torch.float64)
    labels = split.heldout.labels[: len(bits)]
    by_class = {name: bits[labels == label] for label, name in enumerate(split.classes)}
    return {
        **_mean(bits),
        "standard error is": MEANING,
        "classes": {name: _mean(some) for name, some in by_class.items() if len(some)},
        "network calls a batch": sum(part.calls for part in found) / len(found),
    }


def _mean(bits: Tensor) -> dict[str, Any]:
    error = float(bits.std()) / len(bits) ** 0.5 if len(bits) > 1 else None
    return {"bits per dimension": float(bits.mean()), "standard error": error, "images": len(bits)}
