"""Constructors refuse numbers that are not finite, too small, or of the wrong type."""

import math
from collections.abc import Callable

import pytest
import torch

from sitkit.backbones import MLP, Mixture
from sitkit.interpolants import DDPM, VP, Bridge, Linear, QuadraticBridge, SineBridge
from sitkit.objectives import Grid, Hybrid, LogitNormal, LossCurve, OptimalTransport, Shifted, Uniform, sources
from sitkit.samplers import (
    KL,
    Autoguidance,
    Brownian,
    ClassifierFree,
    Constant,
    Exponential,
    Hutchinson,
    KLEta,
    RaisedCosine,
    Sigma,
    SineSquared,
    adaptive,
    bits_per_dimension,
    grids,
    log_likelihood,
    plan,
    solve_each,
)
from sitkit.samplers.roughness import NormalRoughness
from worlds import Field

field: Field = lambda x, t: x  # noqa: E731
INDEX, ZEROS = torch.arange(2), torch.zeros(2, 2)
REAL: dict[str, Callable[[float], object]] = {
    "VP's beta_min": lambda v: VP(v, 20.0),
    "VP's beta_max": lambda v: VP(0.1, v),
    "DDPM's beta_min": lambda v: DDPM(10, v, 0.5),
    "DDPM's beta_max": lambda v: DDPM(10, 0.1, v),
    "Bridge's scale": Bridge,
    "SineBridge's scale": SineBridge,
    "QuadraticBridge's scale": QuadraticBridge,
    "Masked's hidden": sources.Masked,
    "Coarse's std": lambda v: sources.Coarse(2, v),
    "Noisy's std": sources.Noisy,
    "LogitNormal's mean": lambda v: LogitNormal(v, 1.0),
    "LogitNormal's std": lambda v: LogitNormal(0.0, v),
    "Shifted's shift": lambda v: Shifted(Uniform(), v),
    "LossCurve's times": lambda v: LossCurve([0.1, v], [1.0, 1.0]),
    "LossCurve's losses": lambda v: LossCurve([0.1], [v]),
    "Mixture's weights": lambda v: Mixture(torch.tensor([1.0, v]), ZEROS, torch.eye(2).expand(2, 2, 2)),
    "Mixture's means": lambda v: Mixture.isotropic(torch.tensor([[1.0, v]]), 1.0),
    "Mixture's std": lambda v: Mixture.isotropic(ZEROS, v),
    "Constant's c": Constant,
    "Sigma's scale": lambda v: Sigma(Linear(), v),
    "SineSquared's scale": SineSquared,
    "RaisedCosine's scale": RaisedCosine,
    "KL's scale": lambda v: KL(Linear(), v),
    "KLEta's eta": lambda v: KLEta(Linear(), v, torch.ones_like),
    "guidance's scale": lambda v: ClassifierFree(field, INDEX, 2, v),  # type: ignore[arg-type]
    "autoguidance's scale": lambda v: Autoguidance(field, field, v),
    "Brownian's low": lambda v: Brownian(0, INDEX, (v, 1.0)),
    "Brownian's high": lambda v: Brownian(0, INDEX, (0.0, v)),
    "a grid's exponent": lambda v: grids.power(Linear(), 5, exponent=v),
    "a grid's shift": lambda v: grids.shifted(Linear(), 5, shift=v),
    "a grid's limit": lambda v: grids.uniform_log_snr(Linear(), 5, limit=v),
    "a plan's interval": lambda v: plan(field, Linear(), evaluations=5, interval=(0.0, v)),
    "a tolerance": lambda v: solve_each(field, ZEROS, 0.0, 1.0, rtol=v),
    "a tolerance of adaptive": lambda v: adaptive(field, ZEROS, 0.0, 1.0, atol=v),
    "a tolerance of log_likelihood": lambda v: log_likelihood(field, ZEROS, rtol=v),
    "a roughness's scale": lambda v: NormalRoughness((0.1, v)),
}
WHOLE: dict[str, Callable[[int], object]] = {
    "DDPM's steps": DDPM,
    "Grid's steps": Grid,
    "Hybrid's steps": lambda v: Hybrid(DDPM(), v),
    "Masked's tiles": lambda v: sources.Masked(0.3, v),
    "Coarse's factor": sources.Coarse,
    "OptimalTransport's block": OptimalTransport,
    "Hutchinson's probes": Hutchinson,
    "guidance's channels": lambda v: ClassifierFree(field, INDEX, 2, 2.0, channels=v),  # type: ignore[arg-type]
    "dimensions": lambda v: bits_per_dimension(torch.zeros(2), v),
    "Exponential's order": lambda v: Exponential(field, Linear(), order=v),
    "MLP's features": MLP,
    "a plan's evaluations": lambda v: plan(field, Linear(), evaluations=v),
    "a grid's steps": lambda v: grids.uniform(Linear(), v),
    "DDPM's times": lambda v: DDPM().times(v),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", REAL)
def test_numbers_must_be_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each its own line)
        REAL[name](value)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", WHOLE)
def test_counts_must_be_positive(name: str, value: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each its own line)
        WHOLE[name](value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 2.5])
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "MLP's features"])
def test_counts_must_be_whole(name: str, value: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (each its own line)
        WHOLE[name](value)  # type: ignore[arg-type]
