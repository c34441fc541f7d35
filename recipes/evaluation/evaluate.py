"""What `sitkit evaluate` does: compare samples of a run, or a folder of samples or images, with real images."""

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
from ..sampling.write_folder import generate_missing, open_or_create
from ..storage.files import write_atomic
from ..support.errors import UserError
from .compute_metrics import MIN_IMAGES, ReferenceComparison, compute_metrics
from .config import EvaluationConfig
from .feature_extraction import FeatureExtraction, extract_features, feature_blocks, missing_blocks, read_blocks
from .feature_statistics import FeatureStatistics, compute_statistics
from .html_report import ReportContent, page
from .manifest import manifest_of, side_by_side
from .memory import MemoryDemand
from .per_class import per_class
from .reference import MAX_FEATURES as MAX_REFERENCE_FEATURES
from .reference import Reference, check_reference_path, open_reference, reference_of_split
from .sample_sets import SampleSet, open_samples

MAX_FEATURES = 50_000
"""The largest number of samples whose features are stored for precision, recall and KID, as in ADM."""
SAMPLES = "samples"


def evaluate(
    run: Run, recipe: Recipe, config: EvaluationConfig, *, seed: int, average: str = "ema"
) -> dict[str, Any] | None:
    """Generate samples of a run's newest checkpoint, compute metrics, and write `report.json` and `report.html`.

    If it is interrupted, the next call resumes: samples and features are stored in the folder of the report.

    Args:
        run: the run.
        recipe: its recipe, with the sampler, guidance and evaluation to use.
        config: what to compare samples with, and how.
        seed: the seed of the first set of samples. The other sets have the next seeds.
        average: the name of the EMA weights.

    Returns:
        The report; None except in process 0.

    Raises:
        UserError: there is no complete checkpoint, nothing to compare with, or a package is missing.
    """
    extraction = config.extraction()
    if config.reference is not None:
        check_reference_path(config.reference)  # before samples are generated
    try:
        split = run.data(recipe, images=config.reference is None, heldout=True)
    except UserError as problem:
        if config.reference is None:
            raise UserError(f"{problem}; or set other images to compare with by --reference") from None
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
    extraction = _check_memory(extraction, first.image, len(recipes) * recipe.evaluation.draws, count, split, config)
    sets: dict[str, list[SampleSet]] = {}
    for guided, one in recipes.items():
        sets[guided] = []
        for number in range(seed, seed + recipe.evaluation.draws):
            request = SampleRequest(run, one, split, labels, number, config.batch, average, config.device)
            content = request.content(checkpoint, count)
            digest = hashlib.sha256(json.dumps([identity(content.manifest), count]).encode()).hexdigest()[:12]
            samples = open_or_create(config.out / SAMPLES / f"seed-{number}-{digest}", content, config.partition)
            title = " ".join(["samples", guided, f"{number - seed + 1} of {recipe.evaluation.draws}"])
            make = lambda: SampleGenerator(network(), one, split, number)  # noqa: B023, E731  # called in this iteration
            generate_missing(
                samples, make, labels, batch=config.batch, partition=config.partition, what=" ".join(title.split())
            )
            sets[guided].append(SampleSet.of(samples))
    return _report(sets, split, run, recipe.evaluation.model_dump(mode="json"), extraction, config)


def _check_memory(
    extraction: FeatureExtraction,
    image: tuple[int, int, int],
    draws: int,
    count: int,
    split: Split | None,
    config: EvaluationConfig,
) -> FeatureExtraction:
    """Return the extraction with its demand for memory, checked before anything is computed.

    Raises:
        UserError: there is not enough memory.
    """
    real = (0,) if split is None or config.reference else (len(split.heldout), len(split.training))
    load = MemoryDemand(draws, min(count, MAX_FEATURES), tuple(min(one, MAX_REFERENCE_FEATURES) for one in real))
    extraction = replace(extraction, load=load)
    extraction.check(image)
    return extraction


def _count(recipe: Recipe, split: Split, config: EvaluationConfig) -> int:
    """Return the number of samples, and check that there is something to compare with, before anything is computed."""
    if config.reference is None and len(split.heldout) < MIN_IMAGES:
        raise UserError(f"the data have {len(split.heldout)} held-out images: set what to compare with by --reference")
    if recipe.evaluation.num == "auto" and recipe.data.kind == "absent":
        raise UserError("there are no held-out images: set the number of samples by --set evaluation.num=50000")
    count = len(split.heldout) if recipe.evaluation.num == "auto" else recipe.evaluation.num
    if count < MIN_IMAGES:
        raise UserError(f"evaluation.num is {count}: metrics need {MIN_IMAGES} samples or more")
    return count


def evaluate_samples(folder: Path, recipe: Recipe, config: EvaluationConfig) -> dict[str, Any] | None:
    """Evaluate a folder of samples, with the data of a recipe unless the config has a reference.

    Raises:
        UserError: there are no samples, or nothing to compare with.
    """
    found = SampleFolder.open(folder)
    found.check()
    samples = SampleSet.of(found)
    try:
        split = recipe.data.build() if config.reference is None else None
    except UserError as problem:
        raise UserError(f"{problem}; or set other images to compare with by --reference") from None
    extraction = _check_memory(config.extraction(), samples.image, 1, len(samples), split, config)
    return _report({"": [samples]}, split, None, recipe.evaluation.model_dump(mode="json"), extraction, config)


def evaluate_images(path: Path, config: EvaluationConfig) -> dict[str, Any] | None:
    """Evaluate an npz of images, or a folder of image files, as samples (`open_samples`), with a reference.

    Raises:
        UserError: there are no such images, or the config has no reference.
    """
    samples = open_samples(path, config.out)
    if config.reference is None:
        raise UserError(f"{path} has no data to compare with: set them by --reference")
    extraction = _check_memory(config.extraction(), samples.image, 1, len(samples), None, config)
    return _report({"": [samples]}, None, None, {"features": dump(config.features)}, extraction, config)


def _report(
    sets: dict[str, list[SampleSet]],
    split: Split | None,
    run: Run | None,
    evaluation: Mapping[str, Any],
    extraction: FeatureExtraction,
    config: EvaluationConfig,
) -> dict[str, Any] | None:
    """Compute the metrics of samples, and write the report."""
    statistics = {what: _sample_statistics(folders, extraction) for what, folders in sets.items()}
    first = sets[""][0]
    reference, training = _references(split, first, extraction, config)
    if reference is None:
        return None
    comparison = ReferenceComparison(
        extraction.extractor, reference.statistics, training.statistics if training else None, extraction.device
    )
    metrics = {what: compute_metrics(draws, comparison) for what, draws in statistics.items()}
    report = {
        "numbers": side_by_side(metrics),
        "classes": per_class(statistics[""][0], comparison, first.classes),
        "manifest": manifest_of(sets, statistics[""][0], evaluation, reference, extraction),
    }
    content = ReportContent(
        report, {what: folders[0] for what, folders in sets.items()}, statistics[""][0], reference, training, run
    )
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        write_atomic(config.out / "report.json", json.dumps(report, indent=2).encode())
        write_atomic(config.out / "report.html", page(content).encode())
    except OSError as error:
        raise UserError(f"{config.out} cannot be written: {error.strerror}") from error
    return report


def _sample_statistics(sets: Sequence[SampleSet], extraction: FeatureExtraction) -> list[FeatureStatistics]:
    """Return the statistics of sets of samples, once all processes have finished; none except in process 0."""
    found = []
    for samples in sets:
        blocks = feature_blocks(samples.features / extraction.key, len(samples))
        samples.wait_for_shards(extraction.partition)
        extract_features(
            samples,
            extraction.extractor,
            blocks,
            batch=extraction.batch,
            device=extraction.device,
            partition=extraction.partition,
            what="features of samples",
            check=extraction.check_features,
        )
        if extraction.partition.is_main:
            extraction.partition.wait(lambda: len(missing_blocks(samples, blocks)), f"blocks of {blocks.folder}")  # noqa: B023  # called in this iteration
            found.append(compute_statistics(read_blocks(blocks), len(samples), samples.labels, MAX_FEATURES))
    return found


def _references(
    split: Split | None, samples: SampleSet, extraction: FeatureExtraction, config: EvaluationConfig
) -> tuple[Reference | None, Reference | None]:
    """Return what samples are compared with, and the training images if the reference is the held-out images."""
    if config.reference is not None:
        return open_reference(config.reference, samples.image, samples.classes, extraction, config.crop), None
    assert split is not None
    heldout = reference_of_split(split.heldout, "held-out images", extraction)
    training = reference_of_split(split.training, "training images", extraction)
    return heldout, training
