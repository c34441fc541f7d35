"""How probable held-out images are under the ODE of a trained network, in bits per dimension."""

import json
from functools import partial

import torch

from sitkit.samplers import (
    Counted,
    Divergence,
    Exact,
    Field,
    Hutchinson,
    bits_per_dimension,
    dequantise,
    log_likelihood,
)

from .. import randomness
from ..data.images import InMemory
from ..files import write_whole
from ..intervals import velocity_interval
from ..problem import Problem
from ..progress import progress
from ..recipe import Recipe
from ..run import Run
from ..sample.generate import all_channels, load_network

EXACT_UP_TO = 256
"""Numbers in an image, above which the divergence is estimated unless the number of probes is given."""


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
) -> str:
    """Measure a run's newest checkpoint on held-out images, write `likelihood.json`, and return a line for the reader.

    The network is asked for the image's own class, without guidance. An image's dequantisation and probes are functions
    of the seed and its number.

    Args:
        run: the run.
        recipe: its recipe.
        device: where to compute.
        num: how many images, from the first.
        probes: of the divergence's estimate; 0 is the exact one, None the exact one for small images.
        seed: of dequantisation and probes.
        batch: images at once.
        average: which average of the weights.

    Raises:
        Problem: there is no good checkpoint, or the ODE cannot be solved.
    """
    split = recipe.data.build()
    if not isinstance(split.heldout, InMemory):
        raise Problem("bits per dimension are those of pixels held in memory; this run's data are absent or not such")
    checkpoint = run.latest()
    network = load_network(recipe, split, checkpoint, device, average)
    objective = recipe.objective.build(path=recipe.path.build())
    low, high = velocity_interval(recipe)
    pixels, labels = split.heldout.pixels[:num], split.heldout.labels[:num]
    size = pixels[0].numel()
    probes = (0 if size <= EXACT_UP_TO else 1) if probes is None else probes
    counted = Counted(all_channels(network, objective))
    pieces = []
    parts = torch.split(torch.arange(len(pixels)), batch)
    with progress("likelihood", len(pixels), unit="images") as advance:
        for index in parts:
            noise = randomness.uniforms(seed, randomness.Stream.DEQUANTISATION, index, tuple(pixels.shape[1:]))
            x = dequantise(pixels[index], noise).to(device)
            model: Field = partial(counted, y=labels[index].to(device)) if split.classes else counted
            divergence: Divergence = Hutchinson(probes, seed, index) if probes else Exact()
            try:
                found = log_likelihood(objective.field(model), x, interval=(high, low), divergence=divergence)
            except ValueError as error:
                raise Problem(f"{checkpoint}: {error}") from error
            pieces.append(bits_per_dimension(found.log_prob.double().cpu(), size))
            advance(len(index))
    bits = torch.cat(pieces)
    spread = float(bits.std()) / len(bits) ** 0.5 if len(bits) > 1 else None
    report = {
        "bits per dimension": float(bits.mean()),
        "standard error": spread,
        "images": len(bits),
        "probes": probes or "exact",
        "interval": [high, low],
        "network calls a batch": counted.calls / len(parts),
        "seed": seed,
        "checkpoint": checkpoint.name,
    }
    try:
        write_whole(run.folder / "likelihood.json", json.dumps(report, indent=2).encode())
    except OSError as failed:
        raise Problem(f"{run.folder} cannot be written: {failed.strerror}") from failed
    return (
        f"{report['bits per dimension']:.4f} +- {spread or 0:.4f} bits per dimension on {len(bits)} held-out images, "
        f"{report['network calls a batch']:.0f} network calls a batch: {run.folder / 'likelihood.json'}"
    )
