"""Time grids by name, as used for flows (even, clustered, shifted) and for diffusions (log-SNR, Karras)."""

from collections.abc import Callable

import torch
from torch import Tensor

from sitkit.interpolants import Interpolant
from sitkit.samplers.log_snr import log_snr, time_from_log_snr

WARPS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda u: u,
    "both": lambda u: u**2 * (3 - 2 * u),
    "end": lambda u: 1 - (1 - u) ** 2,
    "start": lambda u: u**2,
    "early": lambda u: u / (u + 3 * (1 - u)),  # shifted by 3, as Stable Diffusion 3 is
    "late": lambda u: 3 * u / (3 * u + 1 - u),
}
LIMITS = {"log-snr 1e-3": 1e-3, "log-snr 1e-2": 1e-2, "log-snr 5e-2": 5e-2}
KARRAS = {"karras 1e-3": 1e-3, "karras 1e-2": 1e-2}
GRIDS = (*WARPS, *LIMITS, *KARRAS)


def grid(name: str, path: Interpolant, steps: int, low: float, high: float) -> Tensor:
    """Return times from low to high, (steps + 1,) float64.

    The grids of diffusions are laid between finite limits of the log-SNR. Where `low` and `high` lie beyond, the first
    time becomes `low` and a last step ends at `high`, as diffusers' schedulers end with a step to sigma = 0.
    """
    if name in WARPS:
        return low + (high - low) * WARPS[name](torch.linspace(0, 1, steps + 1, dtype=torch.float64))
    limit = LIMITS.get(name) or KARRAS[name]
    first, last = max(low, limit), min(high, 1 - limit)
    inner = steps if last == high else steps - 1
    if inner < 1:
        return torch.tensor([low, high], dtype=torch.float64)
    u = torch.linspace(0, 1, inner + 1, dtype=torch.float64)
    ends = log_snr(path, torch.tensor([first, last], dtype=torch.float64))
    if name in LIMITS:
        levels = torch.lerp(ends[0], ends[1], u)
    else:
        levels = -7 * torch.log(torch.lerp((-ends[0] / 7).exp(), (-ends[1] / 7).exp(), u))
    times = time_from_log_snr(path, levels)
    times[0], times[-1] = low, last
    return times if last == high else torch.cat([times, times.new_tensor([high])])
