"""Measurements of one trained run with many samplers: each is made once and stored."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.fingerprint import cache_key
from ..data.images import Split
from ..evaluation.config import EvaluationConfig
from ..evaluation.feature_extraction import key_of
from ..evaluation.reference import state_of
from ..experiment.auto_values import resolve_auto
from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..sampling.labels import Labels
from ..sampling.manifest import identity, manifest_of
from ..storage.files import read_regular, write_atomic
from ..study.parts import REPORTED, SamplerEvaluation, evaluate_sampler
from ..study.statistics import SeedValues
from ..support.errors import UserError
from ..support.json_toml import read_json
from ..support.names import did_you_mean
from .nfe_budget import within

LOG = "log.txt"
"""The file of the progress of evaluations."""


@dataclass(frozen=True)
class TargetMetric:
    """The metric to optimize, and its value for real images, which is None if unknown: then 0 is best."""

    name: str
    real: float | None

    @classmethod
    def of(cls, numbers: Mapping[str, Mapping[str, Any]], wanted: str | None) -> "TargetMetric":
        """Return the metric of a name; by default the first one, a Fréchet distance.

        Raises:
            UserError: no metric has the name, or its value for real images is unknown.
        """
        known = [*numbers]
        name = wanted or known[0]
        if name not in known:
            raise UserError(f"--number {name}: no such number{did_you_mean(name, known)}; known: {', '.join(known)}")
        real = numbers[name]["real"]
        if real is None and name != known[0]:
            raise UserError(f"--number {name}: its value for real images is not known here; take {known[0]}")
        return cls(name, real)


@dataclass(frozen=True, eq=False)
class SamplerMeasurement:
    """A recipe with a sampler, the key of all that its metrics depend on, its sampling seeds, and its metrics."""

    recipe: Recipe
    key: str
    seeds: tuple[int, ...]
    found: SamplerEvaluation

    def values(self, metric: TargetMetric) -> SeedValues:
        """Return a metric by seed."""
        values = map(float, self.found.numbers[metric.name]["values"])
        return SeedValues(dict(zip(self.seeds, values, strict=True)), metric.real)

    def distance(self, metric: TargetMetric) -> float:
        """Return the mean distance of a metric from its value for real images."""
        return self.values(metric).distance.value

    def summary(self, metric: TargetMetric) -> str:
        """Return a metric, and how long it took, as text."""
        return f"{metric.name} {self.found.numbers[metric.name]['mean']:.4g} ({self.found.seconds:.1f} s)"

    def describe(self) -> dict[str, Any]:
        """Return it as plain values, with `auto` resolved in the recipe."""
        used = resolve_auto(self.recipe).model_dump(mode="json", include={"sampler", "guidance"})
        return {**used, "key": self.key, "seeds": [*self.seeds], **asdict(self.found)}


@dataclass(frozen=True, eq=False)
class SamplerBenchmark:
    """Measures a run with other samplers, and stores each measurement in `out/candidates/KEY.json`.

    Args:
        run: the run, whose newest checkpoint is sampled; nothing is written into its folder.
        split: its data.
        config: what to measure; its folder is for temporary files.
        average: which EMA of the weights.
        out: the folder.
    """

    run: Run
    split: Split
    config: EvaluationConfig
    average: str
    out: Path
    failures: dict[str, str] = field(default_factory=dict)
    """Why a measurement failed, by its name."""
    _fitting: dict[str, Recipe] = field(default_factory=dict)

    @cached_property
    def _compared_with(self) -> list[str]:
        """Digests of the features and of all images that samples are compared with."""
        component, reference = self.config.features, self.config.reference
        features = key_of(component, component.build())
        if reference:
            return [features, state_of(reference)]
        return [features, cache_key(self.split.heldout), cache_key(self.split.training)]

    def key(self, recipe: Recipe, seed: int) -> str:
        """Return a digest of all that a measurement depends on."""
        labels = Labels(self.split.classes, recipe.evaluation.labels)
        device = self.config.device
        manifest = manifest_of(recipe, self.split, self.run.latest(), self.average, labels, seed, device)
        everything = [identity(manifest), recipe.evaluation.model_dump(mode="json"), self._compared_with]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:12]

    def measure(self, recipe: Recipe, calls: int, seeds: Sequence[int]) -> SamplerMeasurement:
        """Return a measurement with as many steps as make at most `calls` NFE, from its file if there is one.

        Args:
            recipe: with the sampler; its steps are replaced.
            calls: the NFE of a batch.
            seeds: consecutive sampling seeds.

        Raises:
            UserError: the sampler cannot be used or evaluated.
        """
        what = json.dumps([recipe.model_dump(mode="json"), calls])
        if what not in self._fitting:
            self._fitting[what] = within(recipe, self.split, calls)
        evaluation = recipe.evaluation.model_copy(update={"draws": len(seeds), "unguided": False})
        recipe = self._fitting[what].model_copy(update={"evaluation": evaluation})
        key = self.key(recipe, seeds[0])
        file = self.out / "candidates" / f"{key}.json"
        if file.is_file():
            measured = _read(file, recipe)
        else:
            measured = SamplerMeasurement(recipe, key, tuple(seeds), self._evaluate(recipe, seeds[0]))
            write_atomic(file, json.dumps(measured.describe(), indent=2).encode())
        if measured.found.calls > calls:
            raise UserError(f"it made {measured.found.calls} NFE, and {calls} are allowed")
        return measured

    def _evaluate(self, recipe: Recipe, seed: int) -> SamplerEvaluation:
        try:
            with (self.out / LOG).open("a") as log, redirect_stderr(log):
                found = evaluate_sampler(self.run, recipe, self.config, seed, self.average)
        except ValueError as error:
            raise UserError(str(error)) from None
        numbers = {name: {key: number[key] for key in REPORTED} for name, number in found.numbers.items()}
        return SamplerEvaluation(numbers, found.calls, found.rows, found.seconds)

    def attempt(
        self, recipe: Recipe, name: str, calls: int, seeds: Sequence[int], metric: TargetMetric
    ) -> SamplerMeasurement | None:
        """Return a measurement; None if it fails or its metric is not finite, which is added to `failures`."""
        try:
            measured = self.measure(recipe, calls, seeds)
        except UserError as problem:
            self.failures[name] = "; ".join(str(problem).splitlines())
            return None
        if not math.isfinite(measured.distance(metric)):
            self.failures[name] = f"{metric.name} is not finite"
            return None
        return measured


def _read(file: Path, recipe: Recipe) -> SamplerMeasurement:
    try:
        table = read_json(read_regular(file))
        found = SamplerEvaluation(*(table[name] for name in ("numbers", "calls", "rows", "seconds")))
        return SamplerMeasurement(recipe, table["key"], tuple(table["seeds"]), found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and the candidate is measured again") from None
