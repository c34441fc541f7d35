"""The values that `sitkit tune` tries of a key by default."""

import math
from collections.abc import Mapping
from typing import Any

from sitkit.objectives import LossCurve

NO_NOISE = "ode"
"""The name of w = 0 among values of w: the ODE."""
CEILINGS = (1.0, 3.0)
"""The upper limits of `kl_eta` where w_KL is large and the loss is its mean: sqrt(L / (2 eta))."""

DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "sampler.kind": ("ode", "sde"),
    "sampler.w": (
        NO_NOISE,
        *({"kind": "sigma", "scale": scale} for scale in (0.5, 1.0, 2.0)),
        *({"kind": "kl", "scale": scale} for scale in (0.25, 1.0)),
        *({"kind": "sine_squared", "scale": scale} for scale in (0.5, 1.0, 2.0)),
        *({"kind": "raised_cosine", "scale": scale} for scale in (0.25, 1.0)),
        {"kind": "constant", "c": 0.5},
    ),
    "sampler.solver": (
        "auto",
        *({"kind": "exponential", "order": order} for order in (1, 2)),
        *("euler", "heun", "midpoint", "rk4"),
        *("euler_maruyama", "stochastic_heun"),
    ),
    "sampler.times": (
        "auto",
        "uniform",
        *({"kind": "power", "exponent": exponent} for exponent in (1.25, 2.0, 3.0)),
        *({"kind": "shifted", "shift": shift} for shift in (0.5, 2.0)),
        *("uniform_log_snr", "fitted"),
    ),
    "sampler.last": ("auto", "none", "euler", "tweedie", "mean"),
    "sampler.last_step": ("auto", 0.02, 0.04, 0.1),
    "sampler.path": ("auto", "linear", "gvp", "vp"),
    "guidance.scale": (1.0, 1.25, 1.5, 2.0, 3.0, 4.0),
    "guidance.interval": ([0.0, 1.0], [0.0, 0.8], [0.1, 1.0], [0.2, 0.8], [0.3, 1.0]),
}


def default_values(key: str, curve: LossCurve | None) -> tuple[Any, ...]:
    """Return the default values of a key, which may be none; `kl_eta` needs a loss curve."""
    values = DEFAULTS.get(key, ())
    if key != "sampler.w" or curve is None:
        return values
    mean = math.fsum(curve.losses) / len(curve.losses)
    etas = (float(f"{mean / (2 * ceiling**2):.2g}") for ceiling in CEILINGS)
    return (*values, *({"kind": "kl_eta", "eta": eta} for eta in etas))
