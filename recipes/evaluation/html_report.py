"""The report of `sitkit evaluate`, `report.html`: one file with its images inside."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..metrics import nearest
from ..runs.run import Run
from ..sampling.image_grid import label_grid, tile
from ..support.html_pages import figure_png, render
from .feature_statistics import FeatureStatistics
from .image_sources import ImageSource
from .reference import Reference
from .sample_sets import SampleSet
from .text_table import other_sets, too_few, with_spread

NEIGHBOURS = 12
PER_CLASS, MOST_CLASSES = 8, 12
"""The numbers of images per class, and of classes, in a grid."""
OF_CLASS = ("samples", "reference", "wanted", "distance", "real")
"""The columns of the table of classes."""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """The content of a report.

    Args:
        report: the metrics and the manifest.
        sets: the first draw of each set of samples, by name; the name of the set with the recipe's guidance is empty.
        samples: the statistics of the features of the set with the recipe's guidance.
        reference: the images or statistics that the samples are compared with.
        training: the training images, if they are available.
        run: the run, if the samples were generated for this report.
    """

    report: Mapping[str, Any]
    sets: Mapping[str, SampleSet]
    samples: FeatureStatistics
    reference: Reference
    training: Reference | None
    run: Run | None


def page(content: ReportContent) -> str:
    """Return the HTML of a report: metrics, samples, their nearest neighbours, classes, loss, manifest."""
    manifest, first = content.report["manifest"], content.sets[""]
    where = content.run.folder if content.run else first.path
    title = ", ".join([where.resolve().name, *([manifest["checkpoint"]] if "checkpoint" in manifest else [])])
    images = {f"Samples {what}".strip(): _grid(one, one.labels, first.classes) for what, one in content.sets.items()}
    lines = [_cost(manifest), *too_few(content.report)]
    reference = content.reference.images
    if reference is None:
        lines.append(f"{content.reference.about.get('source')} has statistics only, no images to show")
    else:
        images["Reference images"] = _grid(reference, reference.labels, first.classes)
        images |= _neighbours(content, reference)
    return render(
        "evaluation/templates/report.html",
        title=title,
        numbers=_numbers(content.report["numbers"]),
        lines=lines,
        images={caption: _png(image) for caption, image in images.items()},
        classes=[[one["class"], *(_short(one[key]) for key in OF_CLASS)] for one in content.report["classes"]],
        most_open=2 * MOST_CLASSES,
        loss=_loss(content.run) if content.run and content.run.metrics() else None,
        manifest=json.dumps(manifest, indent=2),
    )


def _cost(manifest: Mapping[str, Any]) -> str:
    """Return the number of samples and the NFE, as text."""
    draws = f"{manifest['draws']} draws of " if manifest["draws"] > 1 else ""
    calls = ", ".join(f"{calls} ({what})" for what, calls in manifest["network_calls"].items())
    return f"{draws}{manifest['samples']} samples" + (f"; NFE: {calls}" if calls else "")


def _numbers(numbers: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the table of the metrics: of samples, other sets of samples and real images, with the meaning of each."""
    others = other_sets(numbers)
    rows = []
    for name, number in numbers.items():
        beside = [with_spread(number[what]) if what in number else "" for what in others]
        rows.append([name, with_spread(number), *beside, _short(number["real"]), number["meaning"]])
    return {"head": ["", "samples", *others, "real", ""], "rows": rows}


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.4g}"


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, format="png", optimize=True)
    return data.getvalue()


def _grid(images: ImageSource, labels: Tensor | None, classes: tuple[str, ...]) -> Image.Image:
    """Return a grid of the first images of each class, for the first classes."""
    if labels is None or not classes:
        return label_grid(images.read(torch.arange(min(PER_CLASS**2, len(images)))), None, ())
    some = [(labels == label).nonzero()[:PER_CLASS, 0] for label in range(len(classes))]
    first = torch.cat([one for one in some if len(one)][:MOST_CLASSES])
    return label_grid(images.read(first), labels[first], classes)


def _neighbours(content: ReportContent, reference: ImageSource) -> dict[str, Image.Image]:
    """Return samples above their nearest neighbours in features, of the training images and of the reference."""
    some = content.samples.features[:NEIGHBOURS]
    rows = [content.sets[""].read(content.samples.numbers[:NEIGHBOURS])]
    sets = [(content.reference, reference)]
    if content.training and content.training.images:
        sets.insert(0, (content.training, content.training.images))
    for known, images in sets:
        rows.append(images.read(known.statistics.numbers[nearest(some, known.statistics.features)]))
    among = "the nearest training image, the nearest held-out image" if len(sets) > 1 else "the nearest real image"
    return {f"Samples (above), {among}": tile(torch.cat(rows), columns=len(some))}


def _loss(run: Run) -> bytes:
    """Return a plot of the training loss."""
    records = run.metrics()
    figure = Figure(figsize=(8, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot([record["step"] for record in records], [record["loss"] for record in records], linewidth=1)
    axes.set(xlabel="step", ylabel="loss of a batch")
    axes.grid(alpha=0.3)
    return figure_png(figure)
