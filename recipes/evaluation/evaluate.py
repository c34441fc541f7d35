"""What `sitkit evaluate` does: samples of a run, or a folder of samples, compared with real images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ..data.images import Split
from ..experiment.components import dump
from ..experiment.recipe import Recipe
from ..network.build import load_for_sampling
from ..runs.run import Run
from ..sampling.generator import SampleGenerator
from ..sampling.labels import Labels
from ..sampling.manifest import identity
from ..sampling.sample import SampleRequest
from ..sampling.sample_folder import SampleFolder
from ..sampling.write_folder import begin, draw_into
from ..storage.files import write_atomic
from ..support.errors import UserError
from .config import EvaluationConfig
from .feature_extraction import FeatureExtraction, blocks_of, extract, missing, stored
from .feature_statistics import FeatureStatistics, gather
from .html_report import ReportContent, page
from .manifest import manifest_of, side_by_side
from .measure import LEAST, ReferenceComparison, measure
from .memory import MemoryDemand
from .per_class import per_class
from .reference import KEPT as OF_REFERENCE
from .reference import Reference, of_heldout, of_path
from .sample_sets import SampleSet, open_samples

KEPT = 50_000
"""Samples of which features are kept, at most: as many as ADM compares."""
SAMPLES = "samples"


def evaluate(
    run: Run, recipe: Recipe, config: EvaluationConfig, *, seed: int, average: str = "ema"
) -> dict[str, Any] | None:
    """Draw samples of a run's newest checkpoint, measure them, and write `report.json` and `report.html`.

    All may be interrupted, and goes on where it stopped: samples stay in `samples` in the report's folder.

    Args:
        run: the run.
        recipe: its recipe, with the sampler, guidance and evaluation that are wanted.
        config: what is to be measured.
        seed: of the first draw; the others follow.
        average: which average of the weights.

    Returns:
        The report; None for processes that only help.

    Raises:
        UserError: there is no good checkpoint, nothing to compare with, or a package is missing.
    """
    how = config.extraction()
    try:
        split = run.data(recipe, images=config.reference is None, heldout=True)
    except UserError as problem:
        if config.reference is None:
            raise UserError(f"{problem}; --reference names other images to compare with") from None
        raise
    count = _count(recipe, split, config)
    labels = Labels(split.classes, recipe.evaluation.labels)
    checkpoint = run.latest()
    network = cache(lambda: load_for_sampling(recipe, split, checkpoint, config.device, average))
    guidance = recipe.guidance.model_copy(update={"scale": 1.0})
    recipes = {"": recipe}
    if recipe.evaluation.unguided and recipe.guidance.scale != 1 and split.classes:
        recipes["without guidance"] = recipe.model_copy(update={"guidance": guidance})
    first = SampleRequest(run, recipe, split, labels, seed, config.batch, average, config.device)
    how = _with_memory(how, first.image, len(recipes) * recipe.evaluation.draws, count, split, config)
    sets: dict[str, list[SampleSet]] = {}
    for what, one in recipes.items():
        sets[what] = []
        for number in range(seed, seed + recipe.evaluation.draws):
            request = SampleRequest(run, one, split, labels, number, config.batch, average, config.device)
            content = request.content(checkpoint, count)
            digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
            samples = begin(config.out / SAMPLES / f"seed-{number}-{digest}", content, config.partition)
            name = " ".join(["samples", what, f"{number - seed + 1} of {recipe.evaluation.draws}"])
            draw = lambda: SampleGenerator(network(), one, split, number)  # noqa: B023, E731  # called before the next is made
            draw_into(
                samples, draw, labels, batch=config.batch, partition=config.partition, what=" ".join(name.split())
            )
            sets[what].append(SampleSet.of(samples))
    return _report(sets, split, run, recipe.evaluation.model_dump(mode="json"), how, config)


def _with_memory(
    how: FeatureExtraction,
    image: tuple[int, int, int],
    draws: int,
    count: int,
    split: Split | None,
    config: EvaluationConfig,
) -> FeatureExtraction:
    """Return an extraction that knows how much is held in memory; asked before anything is computed.

    Raises:
        UserError: there is not so much.
    """
    real = (0,) if split is None or config.reference else (len(split.heldout), len(split.training))
    load = MemoryDemand(draws, min(count, KEPT), tuple(min(one, OF_REFERENCE) for one in real))
    how = replace(how, load=load)
    how.check(image)
    return how


def _count(recipe: Recipe, split: Split, config: EvaluationConfig) -> int:
    """Return how many samples to draw; asked before anything is computed, for there may be nothing to compare with."""
    if config.reference is None and len(split.heldout) < LEAST:
        raise UserError(f"the data hold {len(split.heldout)} images out: name something to compare with by --reference")
    if recipe.evaluation.num == "auto" and recipe.data.kind == "absent":
        raise UserError("there are no held-out images to count: say how many samples, --set evaluation.num=50000")
    count = len(split.heldout) if recipe.evaluation.num == "auto" else recipe.evaluation.num
    if count < LEAST:
        raise UserError(f"evaluation.num is {count}, and numbers take {LEAST} samples or more")
    return count


def evaluate_samples(folder: Path, recipe: Recipe, config: EvaluationConfig) -> dict[str, Any] | None:
    """Measure a folder of samples, as `evaluate` does, by the data of a recipe unless a reference is named.

    Raises:
        UserError: there are no samples, or nothing to compare with.
    """
    found = SampleFolder.open(folder)
    found.check()
    samples = SampleSet.of(found)
    try:
        split = recipe.data.build() if config.reference is None else None
    except UserError as problem:
        raise UserError(f"{problem}; --reference names other images to compare with") from None
    how = _with_memory(config.extraction(), samples.image, 1, len(samples), split, config)
    return _report({"": [samples]}, split, None, recipe.evaluation.model_dump(mode="json"), how, config)


def evaluate_images(path: Path, config: EvaluationConfig) -> dict[str, Any] | None:
    """Measure an npz of images, or a folder of image files, as samples (`open_samples`), by a reference.

    Raises:
        UserError: there are no such images, or no reference is named.
    """
    samples = open_samples(path, config.out)
    if config.reference is None:
        raise UserError(f"of the images in {path} it is not known what they should be like: name that by --reference")
    how = _with_memory(config.extraction(), samples.image, 1, len(samples), None, config)
    return _report({"": [samples]}, None, None, {"features": dump(config.features)}, how, config)


def _report(
    sets: dict[str, list[SampleSet]],
    split: Split | None,
    run: Run | None,
    evaluation: Mapping[str, Any],
    how: FeatureExtraction,
    config: EvaluationConfig,
) -> dict[str, Any] | None:
    """Look at samples and at what they are compared with, and write the report."""
    looked = {what: _look(folders, how) for what, folders in sets.items()}
    first = sets[""][0]
    reference, training = _references(split, first, how, config)
    if reference is None:
        return None
    against = ReferenceComparison(
        how.extractor, reference.statistics, training.statistics if training else None, how.device
    )
    numbers = {what: measure(draws, against) for what, draws in looked.items()}
    report = {
        "numbers": side_by_side(numbers),
        "classes": per_class(looked[""][0], against, first.classes),
        "manifest": manifest_of(sets, looked[""][0], evaluation, reference, how),
    }
    shown = ReportContent(
        report, {what: folders[0] for what, folders in sets.items()}, looked[""][0], reference, training, run
    )
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        write_atomic(config.out / "report.json", json.dumps(report, indent=2).encode())
        write_atomic(config.out / "report.html", page(shown).encode())
    except OSError as error:
        raise UserError(f"{config.out} cannot be written: {error.strerror}") from error
    return report


def _look(sets: Sequence[SampleSet], how: FeatureExtraction) -> list[FeatureStatistics]:
    """Return the statistics of samples, once all were drawn and looked at; nothing for processes that only help."""
    found = []
    for samples in sets:
        blocks = blocks_of(samples.features / how.key, len(samples))
        samples.wait(how.partition)
        what = "looking at samples"
        extract(
            samples,
            how.extractor,
            blocks,
            batch=how.batch,
            device=how.device,
            partition=how.partition,
            what=what,
            check=how.check_features,
        )
        if how.partition.is_main:
            how.partition.wait(lambda: len(missing(samples, blocks)), f"blocks of {blocks.folder}")  # noqa: B023  # called at once
            found.append(gather(stored(blocks), len(samples), samples.labels, KEPT))
    return found


def _references(
    split: Split | None, samples: SampleSet, how: FeatureExtraction, config: EvaluationConfig
) -> tuple[Reference | None, Reference | None]:
    """Return what samples are compared with, and the training images, if both are of the run's data."""
    if config.reference is not None:
        return of_path(config.reference, samples.image, samples.classes, how, config.crop), None
    assert split is not None
    heldout = of_heldout(split.heldout, "held-out images", how)
    training = of_heldout(split.training, "training images", how)
    return heldout, training
