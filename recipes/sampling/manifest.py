"""The manifest of samples: everything that they depend on."""

from pathlib import Path
from typing import Any

import torch

from ..data.images import Split
from ..experiment.auto_values import resolve_auto
from ..experiment.recipe import Recipe
from ..runs.data_paths import PATH_KEYS
from ..storage import checkpoints
from ..support.environment import versions
from .labels import Labels
from .sources import describe_sources

MADE_BY = "made_by"
"""The part of a manifest that affects samples by rounding only. It may differ when sampling resumes."""
STEP_NOISE = "Philox 4x32-10, domain 1"
"""The generator of the noise of an SDE's steps. Samples of versions that used another one lack this entry."""
OF_SAMPLES = ("seed", "data", "path", "objective", "backbone", "sampler", "guidance")
"""The parts of a recipe that samples depend on, for given weights."""


def manifest_of(
    recipe: Recipe, split: Split, checkpoint: Path, average: str, labels: Labels, seed: int, device: torch.device
) -> dict[str, Any]:
    """Return everything that the samples of a checkpoint depend on, except their number.

    Args:
        recipe: the run's recipe, with the sampler and guidance in use.
        split: its data, which define how states are decoded to pixels.
        checkpoint: the folder of the checkpoint.
        average: the name of the EMA weights.
        labels: the rule of the labels.
        seed: of the sampling.
        device: where samples are generated.
    """
    resolved = resolve_auto(recipe).model_dump(mode="json")
    decoder: dict[str, Any] = getattr(split.decode, "describe", dict)()
    return {
        "recipe": resolved,
        "checkpoint": checkpoint.name,
        "average": average,
        "average_sha256": _sha256(checkpoint, average),
        "seed": seed,
        "labels": str(labels),
        **describe_sources(recipe, split),
        "decoder": decoder or "none: states are pixels",
        "pixels": "floor(clamp(127.5 x + 128, 0, 255))",
        "precision": recipe.sampler.precision,
        **({"step_noise": STEP_NOISE} if recipe.sampler.kind == "sde" else {}),
        MADE_BY: {
            "device": device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
            "compiled": recipe.compute.compile,
            **versions(),
        },
    }


def identity(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a manifest that is equal for samples that are equal up to rounding."""
    recipe = {key: manifest["recipe"][key] for key in OF_SAMPLES}
    if (source := manifest["recipe"].get("source", "noise")) != "noise":
        recipe["source"] = source
    if isinstance(recipe["data"], dict):
        recipe["data"] = {key: value for key, value in recipe["data"].items() if key not in PATH_KEYS}
    return {key: value for key, value in manifest.items() if key != MADE_BY} | {"recipe": recipe}


def _sha256(checkpoint: Path, average: str) -> str:
    """Return the sha256 of the file of the EMA weights, or of all files that they are reconstructed from."""
    if digest := checkpoints.sha256_of(checkpoint, average):
        return digest
    parts = [
        f"{one.name}/{part} {checkpoints.sha256_of(one, part)}"
        for one in checkpoints.list_checkpoints(checkpoint.parent)
        if checkpoints.step_of(one) <= checkpoints.step_of(checkpoint)
        for part in sorted(file.stem for file in one.glob("width-*.safetensors"))
    ]
    return f"made of {', '.join(parts)}"
