"""What `sitkit likelihood` does: bits per dimension of held-out images under the ODE of a trained network."""

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
from .bits_per_dim import SOLVER, BatchBits, BitsEstimator, BitsStore, batches, collect_bits, measure_bits

SIGNS = "Philox 4x32-10, domain 3"
"""The generator of the random signs of probes. Results of versions that used another one are not reused."""
EXACT_UP_TO = 256
"""The number of values of an image above which the divergence is estimated, unless `probes` is given."""
MEANING = "over images; it includes the randomness of dequantisation and probes, sampled once per image"
PARTS = ("data", "path", "objective", "backbone")
"""The parts of a recipe that bits depend on, for given weights."""


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
    """Compute bits per dimension of held-out images under a run's newest checkpoint, and write `likelihood.json`.

    The network is conditioned on the class of the image, without guidance. The bits of each finished batch are stored
    in the folder `likelihood`, under a name of everything that they depend on (`BitsStore`). The next call computes
    what is missing, and adds images if there are more. If an image file has been written since, all are computed again
    (`data.fingerprint`).

    Under torchrun, or with RANK and WORLD_SIZE set, each process computes a part of the batches. On GPUs, the process
    with LOCAL_RANK k uses GPU k of its machine.

    Args:
        run: the run.
        recipe: its recipe.
        device: where to compute.
        num: the number of images, from the first; all if there are fewer.
        probes: the number of random probes of the divergence; 0 for the exact divergence, None for the exact one for
            small images and one probe for others.
        seed: of dequantisation and probes.
        batch: images at once; see `bits_per_dim` for its effect.
        average: the name of the EMA weights.
        rtol: the relative error tolerance of the solver.
        atol: the absolute error tolerance of the solver.
        say: called with the result, in process 0 only.

    Raises:
        UserError: the data have no pixels or no held-out images, there is no complete checkpoint, the ODE cannot be
            solved, the folder cannot be written, or other processes do not finish.
    """
    if recipe.two_sided or recipe.source:
        raise UserError(
            f"{run.folder}: no likelihood with source.kind = '{recipe.source.kind if recipe.source else 'noise'}' and "
            f"path.kind = '{recipe.path.kind}': it needs the density of what the ODE starts from, so a path from noise "
            "without a source"
        )
    partition = WorkPartition.from_environment()
    device = partition.device(device)
    split = run.data(recipe, heldout=True)
    num = min(num, _held_out(split))
    checkpoint = run.latest()
    network = load_network(recipe, split, checkpoint, device, average)
    interval = velocity_interval(recipe)[::-1]
    probes = (0 if math.prod(split.heldout.shape) <= EXACT_UP_TO else 1) if probes is None else probes
    estimator = BitsEstimator(interval, probes, seed, rtol, atol)
    settings = {
        "checkpoint": checkpoint.name,
        "average": average,
        "average sha256": _sha256(checkpoint, average, network),
        **asdict(estimator),
        **({"signs": SIGNS} if probes else {}),
        "solver": SOLVER,
        "batch": batch,
    }
    parts = batches(num, batch)
    store = _open_store(run.folder / "likelihood", settings, recipe, split, partition)
    measure_bits(
        _velocity_for_labels(network, recipe, split), split.heldout, parts, estimator, store, device, partition
    )
    if not partition.is_main:
        return
    found = collect_bits(parts, store, partition)
    store.merge_files()
    report = _report(found, split) | settings | {"probes": probes or "exact"}
    report["versions"] = versions() | {"torchdiffeq": version("torchdiffeq")}
    file = run.folder / "likelihood.json"
    try:
        write_atomic(file, json.dumps(report, indent=2).encode())
    except OSError as error:
        raise UserError(f"{run.folder} cannot be written: {error.strerror}") from error
    spread = "" if report["standard error"] is None else f" +- {report['standard error']:.4f}"
    say(
        f"{report['bits per dimension']:.4f}{spread} bits per dimension on {num} held-out images, "
        f"{report['network calls a batch']:.0f} NFE: {file}"
    )


def _held_out(split: Split) -> int:
    """Return the number of held-out images.

    Raises:
        UserError: there are none, or the network's states are not pixels.
    """
    count = len(split.heldout)  # raises for absent data
    if split.decode is not to_pixels:
        raise UserError(
            "bits per dimension are defined for pixels, and this run's network is trained on latents: train on pixels "
            "for a likelihood, or evaluate samples with `sitkit evaluate`"
        )
    if not count:
        raise UserError("this run's data have no held-out images: set them by data.heldout or data.split")
    return count


def _velocity_for_labels(network: nn.Module, recipe: Recipe, split: Split) -> Callable[[Tensor], Field]:
    """Return the function from labels to the network's velocity."""
    objective = recipe.build_objective()
    model = all_channels(network, objective)

    def velocity_of(labels: Tensor) -> Field:
        velocity: Field = objective.field(partial(model, y=labels) if split.classes else model)
        return velocity

    return velocity_of


def _open_store(
    folder: Path, settings: Mapping[str, Any], recipe: Recipe, split: Split, partition: WorkPartition
) -> BitsStore:
    """Return the store of results. Its key is a digest of everything that they depend on, listed in `KEY.json`."""
    dumped = recipe.model_dump(mode="json")
    everything = {
        **settings,
        "recipe": {part: dumped[part] for part in PARTS},
        "classes": split.classes,
        "images": cache_key(split.heldout),
        "sitkit": version("sitkit"),
    }
    content = json.dumps(everything, indent=2, sort_keys=True).encode()
    store = BitsStore(folder, hashlib.sha256(content).hexdigest()[:16])
    try:
        folder.mkdir(exist_ok=True)
        if partition.is_main:
            write_atomic(folder / f"{store.key}.json", content)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return store


def _sha256(checkpoint: Path, average: str, network: nn.Module) -> str:
    """Return the sha256 of the file of the EMA weights, or of the tensors if they are reconstructed."""
    return checkpoints.sha256_of(checkpoint, average) or _digest(network.state_dict().values())


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _report(found: list[BatchBits], split: Split) -> dict[str, Any]:
    """Return the mean bits of all images and of each class."""
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
