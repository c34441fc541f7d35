"""The search of a sampler for a trained run, by its NFE and the quality of its samples.

Candidates are chosen by samples of some seeds. The chosen sampler, the run's sampler and each w are then measured on
samples of other seeds: the metric of the best of many candidates is too good on the samples by which it was chosen
(selection bias).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sitkit.objectives import LossCurve

from ..experiment.recipe import Recipe
from ..study.statistics import Estimate, difference
from ..study.study_file import Axis
from ..support.errors import UserError
from .benchmark import SamplerBenchmark, SamplerMeasurement, TargetMetric
from .candidates import W, changed, variant, words
from .grid_search import search
from .kl_bound import DiffusionBound, RankAgreement, judge, kl_bound

LEAST_DRAWS = 3
"""The fewest draws of a report: fewer have hardly a standard deviation."""
BUDGETS = (0.25, 0.5, 1.0, 2.0)
"""The NFE at which quality is reported, relative to the NFE that are allowed."""
CHOSEN, OWN = "chosen", "the run's own"
"""The keys of the chosen sampler and of the run's sampler in `tune.json`."""


def display_name(key: str) -> str:
    """Return the name of a line in pages and messages."""
    return "the run's sampler" if key == OWN else key


@dataclass(frozen=True)
class SearchTask:
    """What to search.

    Args:
        own: the run's recipe, where the search starts.
        axes: what is varied.
        calls: the most NFE of a batch.
        seed: the seed of the first draw.
        number: the name of the metric to optimize; None for the first.
    """

    own: Recipe
    axes: tuple[Axis, ...]
    calls: int
    seed: int
    number: str | None

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are varied."""
        return tuple(axis.name for axis in self.axes)

    @property
    def choosing(self) -> range:
        """The seeds of the samples by which candidates are chosen."""
        return range(self.seed, self.seed + self.own.evaluation.draws)

    @property
    def reporting(self) -> range:
        """The seeds of the samples that are reported, all of them others."""
        first = self.choosing.stop
        return range(first, first + max(LEAST_DRAWS, self.own.evaluation.draws))

    def name(self, recipe: Recipe) -> str:
        """Return the name of a candidate."""
        return ", ".join(f"{key} {word}" for key, word in zip(self.keys, words(recipe, self.keys), strict=True))


@dataclass(frozen=True)
class BoundComparison:
    """The bounds of the w that were varied, and of the ODE, which has none, beside their measurements."""

    found: tuple[DiffusionBound, ...]
    ode: DiffusionBound | None
    times: tuple[float, float]
    agreement: RankAgreement

    @property
    def all(self) -> tuple[DiffusionBound, ...]:
        """The ODE, if it was varied, and each w."""
        return (*([self.ode] if self.ode else []), *self.found)


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Args:
        task: what was searched.
        metric: the metric that was optimized.
        candidates: in the order of their measurement.
        lines: measurements on other samples, by the NFE that were allowed: of the chosen sampler, if it is not the
            run's, of the run's sampler, and of the best of the other kind, ODE or SDE.
        gain: on other samples, how much nearer to real images the chosen sampler is than the run's, if it is another.
        bounds: the bounds of each w, if w was varied and there are data to measure the loss curve on.
        failures: errors by candidate.
    """

    task: SearchTask
    metric: TargetMetric
    candidates: tuple[SamplerMeasurement, ...]
    lines: dict[str, dict[int, SamplerMeasurement]]
    gain: Estimate | None
    bounds: BoundComparison | None
    failures: dict[str, str]

    @property
    def chosen(self) -> SamplerMeasurement:
        """The chosen sampler with the NFE of the task, on other samples than those by which it was chosen."""
        return self.lines[CHOSEN if CHOSEN in self.lines else OWN][self.task.calls]


@dataclass(frozen=True)
class SamplerSearch:
    """A search: what to search, the benchmark that measures candidates, and where progress is reported."""

    task: SearchTask
    benchmark: SamplerBenchmark
    say: Callable[[str], None]

    def run(self, curve: LossCurve | None) -> SearchResult:
        """Return the result; what is stored is not measured again. `curve` is the run's, None without data.

        Raises:
            UserError: the run's sampler cannot be evaluated, or one of its steps exceeds the NFE.
        """
        task, benchmark = self.task, self.benchmark
        own = changed(task.own)
        first = benchmark.measure(own, task.calls, task.choosing)
        metric = TargetMetric.of(first.found.numbers, task.number)
        met: dict[str, SamplerMeasurement] = {}

        def score(recipe: Recipe) -> float | None:
            measured = benchmark.attempt(recipe, task.name(recipe), task.calls, task.choosing, metric)
            if measured is None:
                return None
            if measured.key not in met:
                met[measured.key] = measured
                self.say(f"{len(met)}: {task.name(recipe)}: {measured.summary(metric)}")
            return measured.distance(metric)

        chosen = benchmark.measure(search(own, task.axes, score), task.calls, task.choosing)
        compared = {CHOSEN: chosen, OWN: first, **_other_kind(chosen, met, metric)}
        lines = {
            name: self._line(name, one.recipe, metric)
            for name, one in compared.items()
            if name == OWN or one.key != first.key
        }
        gain = None
        if CHOSEN in lines:
            gain = difference(*(lines[name][task.calls].values(metric).distances for name in (OWN, CHOSEN)))
        bounds = self._bounds(metric, chosen.recipe, curve) if curve else None
        return SearchResult(task, metric, tuple(met.values()), lines, gain, bounds, dict(benchmark.failures))

    def _line(self, name: str, recipe: Recipe, metric: TargetMetric) -> dict[int, SamplerMeasurement]:
        """Return measurements with several NFE; that with the NFE of the task must not fail."""
        task, found = self.task, {}
        self.say(f"{name}, on samples of other seeds, with fewer NFE and with more")
        for calls in sorted({max(1, round(task.calls * budget)) for budget in BUDGETS}):
            if calls == task.calls:
                measured: SamplerMeasurement | None = self.benchmark.measure(recipe, calls, task.reporting)
            else:
                measured = self.benchmark.attempt(recipe, f"{name} with {calls} NFE", calls, task.reporting, metric)
            if measured is not None:
                found[calls] = measured
                self.say(f"{measured.found.calls} NFE: {measured.summary(metric)}")
        return found

    def _bounds(self, metric: TargetMetric, chosen: Recipe, curve: LossCurve) -> BoundComparison | None:
        """Return the bound of each w that was varied, for the path of training and without guidance."""
        task, found, ode = self.task, [], None
        tried = [one for axis in task.axes if axis.name == W or axis.name.startswith(f"{W}.") for one in axis.variants]
        if not tried:
            return None
        self.say("each w, on samples of other seeds, without guidance")
        for one in tried:
            try:
                recipe = changed(chosen, variant("sampler.path", "auto"), variant("guidance.scale", "1.0"), one)
            except UserError:
                continue
            name = words(recipe, (W,))[0]
            measured = self.benchmark.attempt(recipe, f"{name}, without guidance", task.calls, task.reporting, metric)
            if measured is None:
                continue
            self.say(f"{name}: {measured.summary(metric)}")
            if recipe.sampler.kind == "ode":
                ode = DiffusionBound(name, math.inf, measured.values(metric))
            else:
                path = recipe.path.build()
                bound = kl_bound(recipe.sampler.w.build(path=path, loss_curve=curve), path, curve)
                found.append(DiffusionBound(name, bound, measured.values(metric)))
        return BoundComparison(tuple(found), ode, (curve.times[0], curve.times[-1]), judge(found))


def _other_kind(
    chosen: SamplerMeasurement, met: dict[str, SamplerMeasurement], metric: TargetMetric
) -> dict[str, SamplerMeasurement]:
    """Return the best SDE if an ODE was chosen, or the best ODE if an SDE was, if any was measured."""
    kind = chosen.recipe.sampler.kind
    others = [one for one in met.values() if one.recipe.sampler.kind != kind]
    name = "the best SDE" if kind == "ode" else "the best ODE"
    return {name: min(others, key=lambda one: one.distance(metric))} if others else {}
