"""A report that is one file: HTML with its pictures inside."""

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import torch
from PIL import Image
from torch import Tensor

from ..metrics import nearest
from ..runs.run import Run
from ..sampling.image_grid import label_grid, tile
from .feature_statistics import FeatureStatistics
from .image_sources import ImageSource
from .reference import Reference
from .sample_sets import SampleSet
from .text_table import other_sets, too_few, with_spread

matplotlib.use("agg")
from matplotlib import pyplot as plt

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } td:last-child { text-align: left; color: #666; font-size: .85rem }
img { max-width: 100%; image-rendering: pixelated } pre { background: #f6f6f6; padding: 1rem; overflow-x: auto }
"""
NEIGHBOURS = 12
PER_CLASS, MOST_CLASSES = 8, 12
"""Of a grid: images of a class, and classes, the first ones."""


@dataclass(frozen=True, eq=False)
class ReportContent:
    """What a report shows.

    Args:
        report: its numbers and manifest.
        sets: a draw of each set of samples, by what it is; the recipe's own is "".
        samples: what is known of the features of the recipe's own.
        reference: what they were compared with.
        training: the training images, if they are at hand.
        run: the run, if the samples were drawn for this report.
    """

    report: Mapping[str, Any]
    sets: Mapping[str, SampleSet]
    samples: FeatureStatistics
    reference: Reference
    training: Reference | None
    run: Run | None


def page(shown: ReportContent) -> str:
    """Return the HTML of a report: numbers, samples, their nearest neighbours, classes, loss, manifest."""
    manifest, first = shown.report["manifest"], shown.sets[""]
    where = shown.run.folder if shown.run else first.place
    title = ", ".join([where.resolve().name, *([manifest["checkpoint"]] if "checkpoint" in manifest else [])])
    draws = f"{manifest['draws']} draws of " if manifest["draws"] > 1 else ""
    calls = ", ".join(f"{calls} ({what})" for what, calls in manifest["network_calls"].items())
    cost = f"; network calls each: {calls}" if calls else ""
    classes = first.classes
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _numbers(shown.report["numbers"]),
        f"<p>{draws}{manifest['samples']} samples{html.escape(cost)}.</p>",
        *(f"<p>{html.escape(line)}.</p>" for line in too_few(shown.report)),
        *(_figure(f"Samples {what}".strip(), _grid(one, one.labels, classes)) for what, one in shown.sets.items()),
        *_real(shown, classes),
        _classes(shown.report["classes"]),
        _figure("Training loss", _loss(shown.run)) if shown.run and shown.run.metrics() else "",
        f"<h2>Manifest</h2><pre>{html.escape(json.dumps(manifest, indent=2))}</pre>",
    ]
    head = f"<!doctype html><meta charset='utf-8'><title>{html.escape(title)}</title><style>{STYLE}</style>"
    return head + "\n".join(section for section in sections if section)


def _numbers(numbers: Mapping[str, Any]) -> str:
    others = other_sets(numbers)
    rows = [["", "samples", *others, "real", ""]]
    for name, number in numbers.items():
        beside = [with_spread(number[what]) if what in number else "" for what in others]
        real = "" if number["real"] is None else f"{number['real']:.4g}"
        rows.append([name, with_spread(number), *beside, real, number["meaning"]])
    return _table(rows)


def _classes(classes: list[dict[str, Any]]) -> str:
    """Return a table of the classes, if there are any; folded, if there are many."""
    if not classes:
        return ""
    head = ["class", "samples", "reference", "of the wanted class", "distance of means", "real", ""]
    keys = ("samples", "reference", "wanted", "distance", "real")
    rows = [[one["class"], *("" if one[key] is None else f"{one[key]:.4g}" for key in keys), ""] for one in classes]
    shown = " open" if len(rows) <= 2 * MOST_CLASSES else ""
    return f"<h2>Classes</h2><details{shown}><summary>each one</summary>{_table([head, *rows])}</details>"


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _figure(caption: str, picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, format="png", optimize=True)
    source = base64.b64encode(data.getvalue()).decode()
    return f"<h2>{html.escape(caption)}</h2><img alt='{html.escape(caption)}' src='data:image/png;base64,{source}'>"


def _real(shown: ReportContent, classes: tuple[str, ...]) -> list[str]:
    """Return figures of the reference's images and of samples' neighbours, if images are at hand."""
    pictures = shown.reference.pictures
    if pictures is None:
        return [
            f"<p>{html.escape(str(shown.reference.about.get('source')))} has statistics, and no images to show.</p>"
        ]
    return [
        _figure("Images of the reference", _grid(pictures, pictures.labels, classes)),
        _figure(*_neighbours(shown, pictures)),
    ]


def _grid(images: ImageSource, labels: Tensor | None, classes: tuple[str, ...]) -> Image.Image:
    """Return the first few images of every class, or of the first classes."""
    if labels is None or not classes:
        return label_grid(images.read(torch.arange(min(PER_CLASS**2, len(images)))), None, ())
    some = [(labels == label).nonzero()[:PER_CLASS, 0] for label in range(len(classes))]
    first = torch.cat([one for one in some if len(one)][:MOST_CLASSES])
    return label_grid(images.read(first), labels[first], classes)


def _neighbours(shown: ReportContent, pictures: ImageSource) -> tuple[str, Image.Image]:
    """Return a few samples above their nearest neighbours in features, of training images and of the reference."""
    some = shown.samples.features[:NEIGHBOURS]
    rows = [shown.sets[""].read(shown.samples.numbers[:NEIGHBOURS])]
    sets = [(shown.reference, pictures)]
    if shown.training and shown.training.pictures:
        sets.insert(0, (shown.training, shown.training.pictures))
    for known, images in sets:
        rows.append(images.read(known.statistics.numbers[nearest(some, known.statistics.features)]))
    among = "the nearest training image, the nearest held-out image" if len(sets) > 1 else "the nearest real image"
    return f"Samples (above), {among}", tile(torch.cat(rows), columns=len(some))


def _loss(run: Run) -> Image.Image:
    """Return the curve of the training loss."""
    records = run.metrics()
    figure, axes = plt.subplots(figsize=(8, 3), dpi=100, layout="constrained")
    axes.plot([record["step"] for record in records], [record["loss"] for record in records], linewidth=1)
    axes.set(xlabel="step", ylabel="loss of a batch")
    axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return Image.open(data)
