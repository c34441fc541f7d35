"""What `sitkit evaluate` does: samples of a run, or a folder of samples, compared with real images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..components import Component, dump
from ..data.images import Split
from ..features import Extractor
from ..files import write_whole
from ..problem import Problem
from ..recipe import Recipe
from ..run import Run
from ..sample.folder import begin, draw_into
from ..sample.generate import Drawing, load_sampled
from ..sample.labels import Labels
from ..sample.manifest import identity
from ..sample.sampling import Request
from ..sample.shards import SampleFolder
from ..share import Share
from .classes import per_class
from .extraction import Extraction, blocks_of, extract, missing, stored
from .manifest import manifest_of, side_by_side
from .measure import LEAST, Compared, measure
from .memory import Load
from .reference import KEPT as OF_REFERENCE
from .reference import Reference, of_heldout, of_path
from .report import Shown, page
from .samples import SampleSet, open_samples
from .statistics import Statistics, gather

KEPT = 50_000
"""Samples of which features are kept, at most: as many as ADM compares."""
SAMPLES, STATISTICS = "samples", "statistics"


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be measured, and how.

    Args:
        features: the extractor, as a recipe has it.
        reference: what to compare with; None for what the data hold out.
        crop: whether images of a reference folder are cut to the size of samples, or refused.
        batch: images at once.
        device: where to compute.
        out: the folder of the report.
        share: which of the processes this is.
    """

    features: Component
    reference: Path | None
    crop: bool
    batch: int
    device: torch.device
    out: Path
    share: Share = field(default_factory=Share)

    def extraction(self) -> Extraction:
        """Return how images become features.

        Raises:
            Problem: a package is missing.
        """
        extractor: Extractor = self.features.build()
        extractor.sha256  # noqa: B018  # weights that cannot be had are told of before anything is drawn
        return Extraction(self.features, extractor, self.batch, self.device, self.share, self.out / STATISTICS)


def evaluate(run: Run, recipe: Recipe, question: Question, *, seed: int, average: str = "ema") -> dict[str, Any] | None:
    """Draw samples of a run's newest checkpoint, measure them, and write `report.json` and `report.html`.

    All may be interrupted, and goes on where it stopped: samples stay in `samples` in the report's folder.

    Args:
        run: the run.
        recipe: its recipe, with the sampler, guidance and evaluation that are wanted.
        question: what is to be measured.
        seed: of the first draw; the others follow.
        average: which average of the weights.

    Returns:
        The report; None for processes that only help.

    Raises:
        Problem: there is no good checkpoint, nothing to compare with, or a package is missing.
    """
    how = question.extraction()
    try:
        split = run.data(recipe, images=question.reference is None, heldout=True)
    except Problem as problem:
        if question.reference is None:
            raise Problem(f"{problem}; --reference names other images to compare with") from None
        raise
    count = _count(recipe, split, question)
    labels = Labels(split.classes, recipe.evaluation.labels)
    checkpoint = run.latest()
    network = cache(lambda: load_sampled(recipe, split, checkpoint, question.device, average))
    guidance = recipe.guidance.model_copy(update={"scale": 1.0})
    recipes = {"": recipe}
    if recipe.evaluation.unguided and recipe.guidance.scale != 1 and split.classes:
        recipes["without guidance"] = recipe.model_copy(update={"guidance": guidance})
    first = Request(run, recipe, split, labels, seed, question.batch, average, question.device)
    how = _with_memory(how, first.image, len(recipes) * recipe.evaluation.draws, count, split, question)
    sets: dict[str, list[SampleSet]] = {}
    for what, one in recipes.items():
        sets[what] = []
        for number in range(seed, seed + recipe.evaluation.draws):
            request = Request(run, one, split, labels, number, question.batch, average, question.device)
            content = request.content(checkpoint, count)
            digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
            samples = begin(question.out / SAMPLES / f"seed-{number}-{digest}", content, question.share)
            name = " ".join(["samples", what, f"{number - seed + 1} of {recipe.evaluation.draws}"])
            draw = lambda: Drawing(network(), one, split, number)  # noqa: B023, E731  # called before the next is made
            draw_into(samples, draw, labels, batch=question.batch, share=question.share, what=" ".join(name.split()))
            sets[what].append(SampleSet.of(samples))
    return _report(sets, split, run, recipe.evaluation.model_dump(mode="json"), how, question)


def _with_memory(
    how: Extraction, image: tuple[int, int, int], draws: int, count: int, split: Split | None, question: Question
) -> Extraction:
    """Return an extraction that knows how much is held in memory; asked before anything is computed.

    Raises:
        Problem: there is not so much.
    """
    real = (0,) if split is None or question.reference else (len(split.heldout), len(split.training))
    load = Load(draws, min(count, KEPT), tuple(min(one, OF_REFERENCE) for one in real))
    how = replace(how, load=load)
    how.check(image)
    return how


def _count(recipe: Recipe, split: Split, question: Question) -> int:
    """Return how many samples to draw; asked before anything is computed, for there may be nothing to compare with."""
    if question.reference is None and len(split.heldout) < LEAST:
        raise Problem(f"the data hold {len(split.heldout)} images out: name something to compare with by --reference")
    if recipe.evaluation.num == "auto" and recipe.data.kind == "absent":
        raise Problem("there are no held-out images to count: say how many samples, --set evaluation.num=50000")
    count = len(split.heldout) if recipe.evaluation.num == "auto" else recipe.evaluation.num
    if count < LEAST:
        raise Problem(f"evaluation.num is {count}, and numbers take {LEAST} samples or more")
    return count


def evaluate_samples(folder: Path, recipe: Recipe, question: Question) -> dict[str, Any] | None:
    """Measure a folder of samples, as `evaluate` does, by the data of a recipe unless a reference is named.

    Raises:
        Problem: there are no samples, or nothing to compare with.
    """
    found = SampleFolder.open(folder)
    found.check()
    samples = SampleSet.of(found)
    try:
        split = recipe.data.build() if question.reference is None else None
    except Problem as problem:
        raise Problem(f"{problem}; --reference names other images to compare with") from None
    how = _with_memory(question.extraction(), samples.image, 1, len(samples), split, question)
    return _report({"": [samples]}, split, None, recipe.evaluation.model_dump(mode="json"), how, question)


def evaluate_images(path: Path, question: Question) -> dict[str, Any] | None:
    """Measure an npz of images, or a folder of image files, as samples (`open_samples`), by a reference.

    Raises:
        Problem: there are no such images, or no reference is named.
    """
    samples = open_samples(path, question.out)
    if question.reference is None:
        raise Problem(f"of the images in {path} it is not known what they should be like: name that by --reference")
    how = _with_memory(question.extraction(), samples.image, 1, len(samples), None, question)
    return _report({"": [samples]}, None, None, {"features": dump(question.features)}, how, question)


def _report(
    sets: dict[str, list[SampleSet]],
    split: Split | None,
    run: Run | None,
    evaluation: Mapping[str, Any],
    how: Extraction,
    question: Question,
) -> dict[str, Any] | None:
    """Look at samples and at what they are compared with, and write the report."""
    looked = {what: _look(folders, how) for what, folders in sets.items()}
    first = sets[""][0]
    reference, training = _references(split, first, how, question)
    if reference is None:
        return None
    against = Compared(how.extractor, reference.statistics, training.statistics if training else None, how.device)
    numbers = {what: measure(draws, against) for what, draws in looked.items()}
    report = {
        "numbers": side_by_side(numbers),
        "classes": per_class(looked[""][0], against, first.classes),
        "manifest": manifest_of(sets, looked[""][0], evaluation, reference, how),
    }
    shown = Shown(report, {what: folders[0] for what, folders in sets.items()}, looked[""][0], reference, training, run)
    try:
        question.out.mkdir(parents=True, exist_ok=True)
        write_whole(question.out / "report.json", json.dumps(report, indent=2).encode())
        write_whole(question.out / "report.html", page(shown).encode())
    except OSError as error:
        raise Problem(f"{question.out} cannot be written: {error.strerror}") from error
    return report


def _look(sets: Sequence[SampleSet], how: Extraction) -> list[Statistics]:
    """Return the statistics of samples, once all were drawn and looked at; nothing for processes that only help."""
    found = []
    for samples in sets:
        blocks = blocks_of(samples.features / how.key, len(samples))
        samples.wait(how.share)
        what = "looking at samples"
        extract(
            samples,
            how.extractor,
            blocks,
            batch=how.batch,
            device=how.device,
            share=how.share,
            what=what,
            check=how.check_features,
        )
        if how.share.leads:
            how.share.wait(lambda: len(missing(samples, blocks)), f"blocks of {blocks.folder}")  # noqa: B023  # called at once
            found.append(gather(stored(blocks), len(samples), samples.labels, KEPT))
    return found


def _references(
    split: Split | None, samples: SampleSet, how: Extraction, question: Question
) -> tuple[Reference | None, Reference | None]:
    """Return what samples are compared with, and the training images, if both are of the run's data."""
    if question.reference is not None:
        return of_path(question.reference, samples.image, samples.classes, how, question.crop), None
    assert split is not None
    heldout = of_heldout(split.heldout, "held-out images", how)
    training = of_heldout(split.training, "training images", how)
    return heldout, training
