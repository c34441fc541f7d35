"""Measuring a run against held-out data."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from .. import checkpoints
from ..data.images import Split, read_all
from ..files import write_whole
from ..intervals import resolve
from ..metrics import frechet_distance, moments, nearer_share
from ..problem import Problem
from ..recipe import Recipe
from ..run import Run
from ..sample.generate import Samples, balanced_labels, draw, load_network
from .report import write_report


@dataclass(frozen=True)
class Number:
    """A number with what it means: its values, one a draw, beside what real images would give."""

    name: str
    values: list[float]
    real: float
    meaning: str

    @property
    def mean(self) -> float:
        """The mean over draws."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation over draws."""
        return float(torch.tensor(self.values, dtype=torch.float64).std())


def evaluate(run: Run, recipe: Recipe, device: torch.device, *, seed: int, batch: int, average: str = "ema") -> str:
    """Measure a run's newest checkpoint, write `report.json` and `report.html`, and return the table.

    Args:
        run: the run.
        recipe: its recipe, with the sampler, guidance and evaluation that are wanted.
        device: where to sample.
        seed: of the first draw; the others follow.
        batch: samples at once.
        average: which average of the weights.

    Raises:
        Problem: there is no good checkpoint, or a package is missing.
    """
    split = recipe.data.build()
    held = len(split.heldout)  # asked before anything is computed, for there may be no data
    checkpoint = run.latest()
    network = load_network(recipe, split, checkpoint, device, average)
    count = held if recipe.evaluation.num == "auto" else recipe.evaluation.num
    seeds = range(seed, seed + recipe.evaluation.draws)
    free = recipe.model_copy(update={"guidance": recipe.guidance.model_copy(update={"scale": 1.0})})
    labels = balanced_labels(torch.arange(count), split)
    sample = partial(draw, network, split=split, count=count, labels=labels, batch=batch)
    plain = [sample(free, seed=one, what="samples without guidance") for one in seeds]
    numbers = [_frechet(plain, split), _memory(plain, split)]
    guided = plain
    if split.classes:
        if recipe.guidance.scale != 1:
            guided = [sample(recipe, seed=one, what="guided samples") for one in seeds]
        numbers.append(_accuracy(guided, split))
    manifest = _manifest(recipe, checkpoint, average, count, seed, plain[0], guided[0])
    report = {"numbers": {number.name: _describe(number) for number in numbers}, "manifest": manifest}
    try:
        write_whole(run.folder / "report.json", json.dumps(report, indent=2).encode())
        page = write_report(run, report, split, plain[0], guided[0])
        write_whole(run.folder / "report.html", page.encode())
    except OSError as error:
        raise Problem(f"{run.folder} cannot be written: {error.strerror}") from error
    return table(report) + f"\n{run.folder / 'report.html'}"


def table(report: Mapping[str, Any]) -> str:
    """Return the numbers of a report as aligned lines."""
    head = f"{'':42}{'samples':>20}{'real':>10}"
    return "\n".join(
        [head, *(f"{name:42}{_with_spread(n):>20}{n['real']:>10.4g}" for name, n in report["numbers"].items())]
    )


def _with_spread(number: Mapping[str, Any]) -> str:
    return f"{number['mean']:.4g} +- {number['spread']:.2g}"


def _describe(number: Number) -> dict[str, Any]:
    return {
        "mean": number.mean,
        "spread": number.spread,
        "real": number.real,
        "values": number.values,
        "meaning": number.meaning,
    }


def _features(pixels: Tensor) -> Tensor:
    """Return pixels as vectors in [0, 1], (N, C H W) float32."""
    return pixels.flatten(1).float() / 255


def _frechet(draws: list[Samples], split: Split) -> Number:
    heldout = moments(_features(read_all(split.heldout)))
    values = [frechet_distance(*moments(_features(samples.pixels)), *heldout) for samples in draws]
    floor = frechet_distance(*moments(_features(read_all(split.training))), *heldout)
    meaning = "between samples without guidance and held-out images; real: between training and held-out images"
    return Number("Frechet distance of pixels", values, floor, meaning)


def _memory(draws: list[Samples], split: Split) -> Number:
    training, heldout = _features(read_all(split.training)), _features(read_all(split.heldout))
    values = [nearer_share(_features(samples.pixels), training, heldout) for samples in draws]
    meaning = (
        "of samples without guidance; real: the share of a third of all images nearer to the second than to the first"
    )
    return Number("share nearer to training than held-out", values, _memory_of_real(split), meaning)


def _memory_of_real(split: Split, partitions: int = 10) -> float:
    """Return what `_memory` would be for samples that are real: thirds of all images, mean over random partitions."""
    images = _features(torch.cat([read_all(split.training), read_all(split.heldout)]))
    third = len(images) // 3
    shares = []
    for seed in range(partitions):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        one, other, fresh = (images[order[third * k : third * (k + 1)]] for k in range(3))
        shares.append(nearer_share(fresh, one, other))
    return sum(shares) / partitions


def _accuracy(draws: list[Samples], split: Split) -> Number:
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise Problem(f"the classifier needs scikit-learn: pip install 'sitkit[demo]' ({error})") from error
    classifier = SVC(C=10.0).fit(_features(read_all(split.training)).numpy(), split.training.labels.numpy())

    def accuracy(pixels: Tensor, labels: Tensor | None) -> float:
        assert labels is not None
        return float(classifier.score(_features(pixels).numpy(), labels.numpy()))

    values = [accuracy(samples.pixels, samples.labels) for samples in draws]
    meaning = "of guided samples, by a support vector machine trained on the training images; real: on held-out images"
    return Number("share of the wanted class", values, accuracy(read_all(split.heldout), split.heldout.labels), meaning)


def _manifest(
    recipe: Recipe, checkpoint: Any, average: str, count: int, seed: int, plain: Samples, guided: Samples
) -> dict[str, Any]:
    """Return everything that the numbers depend on."""
    files = json.loads((checkpoint / checkpoints.MANIFEST).read_text())["files"]
    return {
        "recipe": resolve(recipe).model_dump(mode="json"),
        "checkpoint": checkpoint.name,
        "average": average,
        "average_sha256": files.get(f"{average}.safetensors", {}).get("sha256", "made of several"),
        "samples": count,
        "draws": recipe.evaluation.draws,
        "first_seed": seed,
        "labels": "every class in turn",
        "pixels": "floor(clamp(127.5 x + 128, 0, 255))",
        "features": "pixels / 255",
        "network_calls": plain.calls,
        "network_rows_a_sample": {"without guidance": plain.rows, "guided": guided.rows},
        "versions": {name: version(name) for name in ("sitkit", "torch", "numpy")}
        | {"python": platform.python_version()},
    }
