"""Measuring one trained run with many samplers: each once, whatever was interrupted."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.fingerprint import cache_key
from ..data.images import Split
from ..evaluation.config import EvaluationConfig
from ..evaluation.evaluate import SAMPLES, evaluate
from ..evaluation.feature_extraction import key_of
from ..evaluation.reference import state_of
from ..experiment.auto_values import resolve_auto
from ..experiment.recipe import Recipe
from ..runs.run import Run
from ..sampling.labels import Labels
from ..sampling.manifest import identity, manifest_of
from ..storage.files import read_regular, write_atomic
from ..study.measure_cell import AS_ASKED
from ..study.record import KEPT
from ..study.statistics import Mean
from ..support.errors import UserError
from ..support.json_toml import read_json
from ..support.names import did_you_mean
from .budget import within

LOG = "log.txt"
"""What evaluation says of its progress."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What was measured of a sampler.

    Args:
        recipe: that has it.
        key: a function of all that the numbers depend on.
        seeds: one for each draw.
        calls: of the network for a batch, as counted.
        rows: of the network for a sample.
        numbers: of `sitkit evaluate`, by name.
        seconds: that it took.
    """

    recipe: Recipe
    key: str
    seeds: tuple[int, ...]
    calls: int
    rows: int
    numbers: Mapping[str, Mapping[str, Any]]
    seconds: float

    def values(self, aim: "Aim") -> dict[int, float]:
        """Return a number by seed."""
        return {seed: float(value) for seed, value in zip(self.seeds, self.numbers[aim.name]["values"], strict=True)}

    def distances(self, aim: "Aim") -> dict[int, float]:
        """Return how far the number is from the aim, by seed."""
        return {seed: abs(value - aim.real) for seed, value in self.values(aim).items()}

    def distance(self, aim: "Aim") -> float:
        """Return the mean of how far the number is from the aim."""
        return Mean.of(self.distances(aim)).value

    def say(self, aim: "Aim") -> str:
        """Return the number and what it took to measure, in words."""
        return f"{aim.name} {self.numbers[aim.name]['mean']:.4g} ({self.seconds:.1f} s)"

    def describe(self) -> dict[str, Any]:
        """Return it as plain values, in which the recipe has what `auto` stood for."""
        used = resolve_auto(self.recipe).model_dump(mode="json", include={"sampler", "guidance"})
        kept = {name: getattr(self, name) for name in ("key", "seeds", "calls", "rows", "numbers", "seconds")}
        return {**used, **kept, "seeds": list(self.seeds)}


@dataclass(frozen=True)
class Aim:
    """The number that is to be best, and what it is to come near to: what real images give, or 0."""

    name: str
    real: float
    known: bool

    @classmethod
    def of(cls, trial: Trial, wanted: str | None) -> "Aim":
        """Return the aim of that name; by default the first number, a Fréchet distance.

        Raises:
            UserError: nothing of that name is measured, or it cannot be said what is good.
        """
        known = [*trial.numbers]
        name = wanted or known[0]
        if name not in known:
            raise UserError(f"--number {name}: no such number{did_you_mean(name, known)}; known: {', '.join(known)}")
        real = trial.numbers[name]["real"]
        if real is None and name != known[0]:
            raise UserError(f"--number {name}: what real images would give is not known here; take {known[0]}")
        return cls(name, float(real or 0.0), real is not None)


@dataclass(frozen=True, eq=False)
class Bench:
    """Measures a run with other samplers, and keeps what it found in `out/candidates/KEY.json`.

    Args:
        run: whose newest checkpoint is measured; nothing is written into its folder.
        split: its data.
        config: with what to compare, and how; its folder is where evaluation works.
        average: which average of the weights.
        out: the folder.
    """

    run: Run
    split: Split
    config: EvaluationConfig
    average: str
    out: Path
    failures: dict[str, str] = field(default_factory=dict)
    _fitting: dict[str, Recipe] = field(default_factory=dict)

    @cached_property
    def checkpoint(self) -> Path:
        """The checkpoint that is measured."""
        return self.run.latest()

    @cached_property
    def _compared(self) -> list[str]:
        """What stands for all that samples are compared with, and for the weights that make features of images."""
        component, reference = self.config.features, self.config.reference
        of = key_of(component, component.build())
        return (
            [of, state_of(reference)]
            if reference
            else [of, cache_key(self.split.heldout), cache_key(self.split.training)]
        )

    def within(self, recipe: Recipe, calls: int) -> Recipe:
        """Return a recipe with as many steps as make no more than `calls` calls.

        Raises:
            UserError: one step makes more, or the sampler cannot be used.
        """
        what = json.dumps([recipe.model_dump(mode="json"), calls])
        if what not in self._fitting:
            self._fitting[what] = within(recipe, self.split, calls)
        return self._fitting[what]

    def key(self, recipe: Recipe, seed: int) -> str:
        """Return twelve digits that stand for all that a trial depends on."""
        labels = Labels(self.split.classes, recipe.evaluation.labels)
        device = self.config.device
        manifest = manifest_of(recipe, self.split, self.checkpoint, self.average, labels, seed, device)
        evaluation = recipe.evaluation.model_dump(mode="json")
        everything = [identity(manifest), evaluation, self._compared]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:12]

    def measure(self, recipe: Recipe, calls: int, seeds: Sequence[int]) -> Trial:
        """Return what is measured with as many steps as make no more than `calls` calls, now or before.

        Args:
            recipe: with the sampler that is wanted, but for its steps.
            calls: of the network for a batch.
            seeds: of the draws, each one more than that before it.

        Raises:
            UserError: it cannot be sampled or measured.
        """
        evaluation = recipe.evaluation.model_copy(update={"draws": len(seeds), "unguided": False})
        recipe = self.within(recipe, calls).model_copy(update={"evaluation": evaluation})
        key = self.key(recipe, seeds[0])
        file = self.out / "candidates" / f"{key}.json"
        trial = _read(file, recipe) if file.is_file() else self._measure(recipe, key, seeds)
        if not file.is_file():
            write_atomic(file, json.dumps(trial.describe(), indent=2).encode())
        if trial.calls > calls:
            raise UserError(f"it made {trial.calls} calls, and {calls} are allowed")
        return trial

    def _measure(self, recipe: Recipe, key: str, seeds: Sequence[int]) -> Trial:
        start = time.monotonic()
        try:
            with (self.out / LOG).open("a") as log, redirect_stderr(log):
                report = evaluate(self.run, recipe, self.config, seed=seeds[0], average=self.average)
        except ValueError as error:
            raise UserError(str(error)) from None
        assert report is not None  # there is one process
        shutil.rmtree(self.config.out / SAMPLES, ignore_errors=True)  # of all candidates they would fill the disk
        numbers = {name: {what: number[what] for what in KEPT} for name, number in report["numbers"].items()}
        calls, rows = (report["manifest"][what][AS_ASKED] for what in ("network_calls", "network_rows_a_sample"))
        return Trial(recipe, key, tuple(seeds), calls, rows, numbers, time.monotonic() - start)

    def attempt(self, recipe: Recipe, what: str, calls: int, seeds: Sequence[int], aim: Aim) -> Trial | None:
        """Return what is measured, None if it cannot be, or its number is not finite: `failures` has why, by `what`."""
        try:
            trial = self.measure(recipe, calls, seeds)
        except UserError as problem:
            self.failures[what] = "; ".join(str(problem).splitlines())
            return None
        if not math.isfinite(trial.distance(aim)):
            self.failures[what] = f"{aim.name} is not finite"
            return None
        return trial


def _read(file: Path, recipe: Recipe) -> Trial:
    try:
        table = read_json(read_regular(file))
        kept = {name: table[name] for name in ("key", "calls", "rows", "numbers", "seconds")}
        return Trial(recipe=recipe, seeds=tuple(table["seeds"]), **kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}): remove it, and the candidate is measured again") from None
