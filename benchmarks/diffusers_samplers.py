"""The schedulers of diffusers as sampling methods, for any path and any grid.

`step` of a scheduler is called as in the pipelines of diffusers; only the noise levels are set. Schedulers for
diffusions assume a path with alpha^2 + sigma^2 = 1. States of other paths are divided by sqrt(alpha^2 + sigma^2):
states of equal signal-to-noise ratio agree up to this factor. The schedulers get the data prediction of the velocity.
They need a finite log-SNR: they start at t > 0, from sigma(t) eps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from grids import GRIDS, grid
from problem import Axes, Draw, Options, Problem
from torch import Tensor

from sitkit.samplers import KL, Tweedie
from sitkit.samplers.log_snr import log_snr, time_from_log_snr


@dataclass(frozen=True)
class DiffusersSampler:
    """A scheduler with its name, the equations that it solves, and its options."""

    name: str
    draw: Draw
    solves: tuple[str, ...]
    axes: Axes
    more: Mapping[str, Axes] = field(default_factory=dict)


Build = Callable[[Problem, Tensor, Options], Any]
"""Builds a scheduler for a problem, a grid and options."""


def diffusion(build: Build) -> Draw:
    """Return a sampler: a scheduler for diffusions, from sigma(t) eps to the data."""

    @torch.no_grad()
    def draw(problem: Problem, x: Tensor, options: Options) -> Tensor:
        path = problem.path
        kind, _, length = str(options["end"]).partition(" ")
        steps = problem.calls - (kind == "tweedie")
        times = grid(str(options["grid"]), path, steps, problem.start(options), 1 - float(length))
        scheduler = build(problem, times, options)
        state = follow(scheduler, problem, x * path.sigma(times[0]), times)
        return state if kind == "stop" else Tweedie(problem.velocity, path).step(state, times[-1], times[-1])

    return draw


def follow(scheduler: Any, problem: Problem, x: Tensor, times: Tensor) -> Tensor:
    """Integrate with a scheduler for diffusions, from state x at the first of `times` to the last."""
    path = problem.path
    alpha, sigma = path.alpha(times), path.sigma(times)
    factor = torch.sqrt(alpha**2 + sigma**2)
    start_scheduler(scheduler, sigma / alpha, (sigma / alpha)[:-1])
    noise = {"generator": problem.generator} if problem.w is not None else {}
    state = x / factor[0]
    for t, mark, scale in zip(times[:-1], scheduler.timesteps, factor[:-1], strict=True):
        here = state * scale
        data = path.data_from_velocity(problem.velocity(here, t.expand(len(x))), here, t)
        state = scheduler.step(data, mark, state, **noise).prev_sample
    return state * factor[-1]


def start_scheduler(scheduler: Any, sigmas: Tensor, marks: Tensor) -> None:
    """Set the noise levels of a scheduler; `marks` are the names of its steps."""
    scheduler.set_timesteps(len(marks))
    scheduler.sigmas, scheduler.timesteps = sigmas, marks
    scheduler.num_inference_steps = len(marks)
    scheduler.set_begin_index(0)


def scheduler_of(name: str) -> Any:
    """Return a scheduler's class; diffusers is imported on use, as that takes seconds."""
    return getattr(import_module("diffusers"), name)


def dpm_solver(problem: Problem, times: Tensor, options: Options) -> Any:
    """Build DPM-Solver++, for the ODE or for the SDE of w = KL."""
    return scheduler_of("DPMSolverMultistepScheduler")(
        prediction_type="sample",
        algorithm_type="dpmsolver++" if problem.w is None else "sde-dpmsolver++",
        solver_order=int(options["order"]),
        solver_type=str(options["type"]),
        euler_at_final=options["final"] == "euler",
        lower_order_final=options["final"] == "lower",
        final_sigmas_type="zero" if times[-1] == 1 else "sigma_min",
    )


def unipc(problem: Problem, times: Tensor, options: Options) -> Any:
    """Build UniPC, for the ODE."""
    return scheduler_of("UniPCMultistepScheduler")(
        prediction_type="sample",
        solver_order=int(options["order"]),
        solver_type=str(options["type"]),
        lower_order_final=options["final"] == "lower"
        or bool(times[-1] == 1),  # of full order it cannot reach sigma = 0
    )


def deis(problem: Problem, times: Tensor, options: Options) -> Any:
    """Build DEIS, for the ODE."""
    return scheduler_of("DEISMultistepScheduler")(
        prediction_type="sample", solver_order=int(options["order"]), lower_order_final=options["final"] == "lower"
    )


def sa_solver(problem: Problem, times: Tensor, options: Options) -> Any:
    """Build SA-Solver, for the SDE of any w: tau^2 is w divided by KL, constant over a step."""
    path = problem.path
    levels = (path.sigma(times) / path.alpha(times))[:-1]

    def tau(mark: Tensor) -> Tensor:
        step = int(torch.argmin((levels - mark).abs()))
        seen = times[step : step + 1]
        if options.get("tau") == "mean":
            ends = log_snr(path, times[step : step + 2])
            seen = time_from_log_snr(
                path, torch.lerp(ends[0], ends[1], (torch.arange(32, dtype=ends.dtype) + 0.5) / 32)
            )
        assert problem.w is not None
        squared: Tensor = (problem.w(seen) / KL(path)(seen)).mean()
        return squared.sqrt()

    return scheduler_of("SASolverScheduler")(
        prediction_type="sample",
        predictor_order=int(options["predictor"]),
        corrector_order=int(options["corrector"]),
        tau_func=tau,
        lower_order_final=options["final"] == "lower",
    )


@torch.no_grad()
def flow_euler(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """FlowMatchEulerDiscreteScheduler: its sigma is 1 - t and its velocity points to the noise."""
    times = grid(str(options["grid"]), problem.path, problem.calls, 0.0, 1.0)
    scheduler = scheduler_of("FlowMatchEulerDiscreteScheduler")()
    start_scheduler(scheduler, 1 - times, 1000 * (1 - times[:-1]))
    return _follow_flow(scheduler, problem, x, times[:-1])


@torch.no_grad()
def flow_heun(problem: Problem, x: Tensor, options: Options) -> Tensor:
    """FlowMatchHeunDiscreteScheduler: the same, whose last step is Euler's."""
    times = grid(str(options["grid"]), problem.path, (problem.calls + 1) // 2, 0.0, 1.0)
    scheduler = scheduler_of("FlowMatchHeunDiscreteScheduler")()
    inner = times[1:-1].repeat_interleave(2)
    asked = torch.cat([times[:1], inner])
    start_scheduler(scheduler, 1 - torch.cat([asked, times[-1:]]), 1000 * (1 - asked))
    return _follow_flow(scheduler, problem, x, asked)


def _follow_flow(scheduler: Any, problem: Problem, x: Tensor, times: Tensor) -> Tensor:
    for t, mark in zip(times, scheduler.timesteps, strict=True):
        x = scheduler.step(-problem.velocity(x, t.expand(len(x))), mark, x).prev_sample
    return x


STARTS = ("1e-3", "1e-4", "1e-5", "1e-2")
ENDS = ("stop 0", "stop 1e-3", "stop 1e-2", "tweedie 1e-2", "tweedie 1e-3")
DIFFUSION = tuple(sorted(GRIDS, key=lambda name: name != "log-snr 1e-2"))
MULTISTEP: Axes = {
    "grid": DIFFUSION,
    "order": (2, 3),
    "end": ENDS[:3],
    "start": STARTS,
    "final": ("lower", "same"),
}

DIFFUSERS_SAMPLERS = (
    DiffusersSampler("diffusers FlowMatchEuler", flow_euler, ("ode",), {"grid": GRIDS}),
    DiffusersSampler("diffusers FlowMatchHeun", flow_heun, ("ode",), {"grid": GRIDS}),
    DiffusersSampler(
        "diffusers DPM-Solver++",
        diffusion(dpm_solver),
        ("ode",),
        {**MULTISTEP, "type": ("midpoint", "heun")},
    ),
    DiffusersSampler(
        "diffusers UniPC",
        diffusion(unipc),
        ("ode",),
        {**MULTISTEP, "type": ("bh2", "bh1")},
    ),
    DiffusersSampler(
        "diffusers DEIS",
        diffusion(deis),
        ("ode",),
        {**MULTISTEP, "end": ENDS[1:]},
    ),
    DiffusersSampler(
        "diffusers SDE-DPM-Solver++",
        diffusion(dpm_solver),
        ("kl",),
        {
            "grid": DIFFUSION,
            "end": ENDS[:3],
            "order": (2, 3),
            "start": STARTS[:2],
            "final": ("lower", "same", "euler"),
            "type": ("midpoint", "heun"),
        },
    ),
    DiffusersSampler(
        "diffusers SA-Solver",
        diffusion(sa_solver),
        ("sigma", "kl"),
        {
            "grid": DIFFUSION,
            "end": ("tweedie 1e-2", "stop 1e-2", "stop 1e-3", "tweedie 5e-2"),
            "predictor": (2, 3),
            "corrector": (2, 1, 3),
            "start": STARTS[:2],
            "final": ("lower", "same"),
        },
        {"sigma": {"tau": ("start", "mean")}},
    ),
)
