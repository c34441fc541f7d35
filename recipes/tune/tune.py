"""What `sitkit tune` does: the choice of a sampler for a trained run, by what it costs and how good its samples are.

Candidates are chosen by samples of some seeds. What is said of the one that is chosen, of the run's own and of each w
is measured on samples of others, for of many candidates the best is the one that was lucky with its samples, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from sitkit.objectives import LossCurve

from ..experiment.recipe import Recipe
from ..study.definition import Axis
from ..study.statistics import Mean, difference
from ..support.errors import UserError
from .benchmark import Aim, Bench, Trial
from .candidates import W, changed, variant, words
from .kl_bound import Bounded, Verdict, judge, kl_bound
from .search import search

LEAST_DRAWS = 3
"""Draws that a report is made of, if no more are asked for: of fewer there is hardly a spread."""
SHARES = (0.25, 0.5, 1.0, 2.0)
"""Of the calls that are allowed: where quality against calls is measured."""
CHOSEN, OWN = "chosen", "the run's own"


@dataclass(frozen=True)
class Task:
    """What is asked for.

    Args:
        own: the run's recipe, to start from.
        axes: what is varied.
        calls: of the network for a batch, at most.
        seed: of the first draw.
        number: that is to be best; None for the first.
    """

    own: Recipe
    axes: tuple[Axis, ...]
    calls: int
    seed: int
    number: str | None

    @property
    def keys(self) -> tuple[str, ...]:
        """What is varied, by key."""
        return tuple(axis.name for axis in self.axes)

    @property
    def choosing(self) -> range:
        """The seeds of samples by which candidates are chosen."""
        return range(self.seed, self.seed + self.own.evaluation.draws)

    @property
    def reporting(self) -> range:
        """The seeds of samples that tell how good the chosen one is: none of the others."""
        first = self.choosing.stop
        return range(first, first + max(LEAST_DRAWS, self.own.evaluation.draws))

    def name(self, recipe: Recipe) -> str:
        """Return what a candidate is, in words."""
        return ", ".join(f"{key} {word}" for key, word in zip(self.keys, words(recipe, self.keys), strict=True))


@dataclass(frozen=True)
class Diffusions:
    """What the bound says of each w, beside what was measured of it without guidance."""

    found: tuple[Bounded, ...]
    ode: Bounded | None
    """The ODE, of which the bound, infinite, says nothing."""
    times: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Tuned:
    """What was found.

    Args:
        task: what was asked for.
        aim: the number, and what it should be.
        candidates: in the order in which they were met.
        lines: on other samples, by the calls that were allowed: of the chosen one, if it is not the run's own, of
            that, and of the best of the other kind, ODE or SDE.
        gain: on other samples, how much nearer to the aim than the run's own the chosen one is, if it is another.
        diffusions: if w was varied and there are data to measure the loss curve on.
        failures: why, by candidate.
    """

    task: Task
    aim: Aim
    candidates: tuple[Trial, ...]
    lines: dict[str, dict[int, Trial]]
    gain: Mean | None
    diffusions: Diffusions | None
    failures: dict[str, str]

    @property
    def chosen(self) -> Trial:
        """The chosen one, on other samples than those by which it was chosen, with the calls that were asked for."""
        return self.lines[CHOSEN if CHOSEN in self.lines else OWN][self.task.calls]


def tune(task: Task, bench: Bench, curve: LossCurve | None, say: Callable[[str], None]) -> Tuned:
    """Return what is found, candidate by candidate: what was measured before is not measured again.

    Raises:
        UserError: the run's own sampler cannot be measured, or makes more calls in one step.
    """
    own = changed(task.own)
    first = bench.measure(own, task.calls, task.choosing)
    aim = Aim.of(first, task.number)
    met: dict[str, Trial] = {}

    def score(recipe: Recipe) -> float | None:
        trial = bench.attempt(recipe, task.name(recipe), task.calls, task.choosing, aim)
        if trial is None:
            return None
        if trial.key not in met:
            met[trial.key] = trial
            say(f"{len(met)}: {task.name(recipe)}: {trial.say(aim)}")
        return trial.distance(aim)

    best = search(own, task.axes, score)
    chosen = bench.measure(best, task.calls, task.choosing)
    wanted = {CHOSEN: chosen, OWN: first, **_other_kind(chosen, met, aim)}
    wanted = {name: one for name, one in wanted.items() if name == OWN or one.key != first.key}
    lines = {}
    for name, one in wanted.items():
        say(f"{name}, on samples of other seeds, with fewer calls and with more")
        lines[name] = _line(one.recipe, name, task, bench, aim, say)
    gain = None
    if CHOSEN in lines:
        gain = difference(*(lines[name][task.calls].distances(aim) for name in (OWN, CHOSEN)))
    diffusions = _diffusions(task, bench, aim, chosen.recipe, curve, say) if curve else None
    return Tuned(task, aim, tuple(met.values()), lines, gain, diffusions, dict(bench.failures))


def _other_kind(chosen: Trial, met: dict[str, Trial], aim: Aim) -> dict[str, Trial]:
    """Return the best SDE if the ODE was chosen, and the other way round, if any was met."""
    kind = chosen.recipe.sampler.kind
    others = [trial for trial in met.values() if trial.recipe.sampler.kind != kind]
    name = "the best SDE" if kind == "ode" else "the best ODE"
    return {name: min(others, key=lambda trial: trial.distance(aim))} if others else {}


def _line(
    recipe: Recipe, name: str, task: Task, bench: Bench, aim: Aim, say: Callable[[str], None]
) -> dict[int, Trial]:
    """Return what a sampler does with several numbers of calls, of which that of the task must go well."""
    found = {}
    for calls in sorted({max(1, round(task.calls * share)) for share in SHARES}):
        if calls == task.calls:
            trial: Trial | None = bench.measure(recipe, calls, task.reporting)
        else:
            trial = bench.attempt(recipe, f"{name} with {calls} calls", calls, task.reporting, aim)
        if trial is not None:
            found[calls] = trial
            say(f"{trial.calls} calls: {trial.say(aim)}")
    return found


def _diffusions(
    task: Task, bench: Bench, aim: Aim, chosen: Recipe, curve: LossCurve, say: Callable[[str], None]
) -> Diffusions | None:
    """Return what the bound says of each w that was tried; it speaks of the path that was learnt, without guidance."""
    tried = [one for axis in task.axes if axis.name == W or axis.name.startswith(f"{W}.") for one in axis.variants]
    if not tried:
        return None
    say("each w, on samples of other seeds, without guidance")
    found, ode = [], None
    for one in tried:
        try:
            recipe = changed(chosen, variant("sampler.path", "auto"), variant("guidance.scale", "1.0"), one)
        except UserError:
            continue
        name = words(recipe, (W,))[0]
        trial = bench.attempt(recipe, f"{name}, without guidance", task.calls, task.reporting, aim)
        if trial is None:
            continue
        say(f"{name}: {trial.say(aim)}")
        if recipe.sampler.kind == "ode":
            ode = Bounded(name, math.inf, trial.distances(aim))
        else:
            path = recipe.path.build()
            bound = kl_bound(recipe.sampler.w.build(path=path, loss_curve=curve), path, curve)
            found.append(Bounded(name, bound, trial.distances(aim)))
    return Diffusions(tuple(found), ode, (curve.times[0], curve.times[-1]), judge(found))
