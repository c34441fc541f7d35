"""SDE solvers from torchsde, on a given grid of times and with a given noise source."""

from itertools import pairwise

import torch
from torch import Tensor

from .noise import white
from .one_step import check_increasing
from .protocols import NoiseSource
from .sde import StochasticEquation
from .states import check_states, flatten_rows, upcast

ITO = ("euler", "milstein")
STRATONOVICH = ("heun", "midpoint", "euler_heun", "reversible_heun")


@torch.no_grad()
def sdeint(
    sde: StochasticEquation, x: Tensor, times: Tensor, *, method: str = "euler", noise: NoiseSource = white
) -> Tensor:
    """Solve an SDE by a method of torchsde. Return the state at the last time, of x's shape (B, *) and dtype.

    The method takes one step from each time to the next. Since w does not depend on the state, the Ito and Stratonovich
    forms of the SDE are equal. No gradients are recorded: for these, use `EulerMaruyama` or `StochasticHeun`.

    Args:
        sde: the SDE. NFE: one per drift that the method evaluates.
        x: the state at times[0].
        times: an increasing grid, (N,), N >= 2.
        method: euler, milstein, heun, midpoint, euler_heun or reversible_heun. `srk` and `log_ode` are not supported,
            because they need Levy areas, and the noise source gives increments only.
        noise: the noise source.

    Raises:
        ValueError: the method is unknown, `times` is not such a grid, or w is not finite at a time of the method.
    """
    import torchsde  # noqa: PLC0415 (imported on use, because it takes a second)

    if method not in ITO + STRATONOVICH:
        raise ValueError(f"give a method of {', '.join(ITO + STRATONOVICH)}; got '{method}'")
    times = check_increasing(times)
    check_states(x)
    if len(times) < 2:
        raise ValueError(f"times must have at least two entries, got {times.tolist()}")
    if not x.numel():
        return x
    adapter = _TorchsdeAdapter(sde, x, noise, "ito" if method in ITO else "stratonovich")
    state, memory = upcast(flatten_rows(x)), None
    for step in pairwise(times):
        t, s = step
        states, memory = torchsde.sdeint(
            adapter,
            state,
            torch.stack(step),
            bm=adapter,
            method=method,
            dt=2 * (s - t),  # longer than s - t, so that rounding cannot add a second step
            extra=True,
            extra_solver_state=memory or None,
        )
        state = states[-1]
        if memory:  # of reversible_heun: drift, diffusion and an auxiliary state
            adapter.cache_drift(state, s, memory[0])
    return state.reshape(x.shape).to(x.dtype)


class _TorchsdeAdapter:
    """The interface of torchsde to an SDE and its Brownian motion, with states (B, D)."""

    noise_type = "diagonal"
    levy_area_approximation = "none"

    def __init__(self, sde: StochasticEquation, x: Tensor, noise: NoiseSource, sde_type: str):
        self.sde = sde
        self.x = x
        self.noise = noise
        self.sde_type = sde_type
        self.shape = tuple(flatten_rows(x).shape)
        self._cached_drift: tuple[Tensor, float, Tensor] | None = None

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift. The last drift is cached, because torchsde evaluates it twice to infer its shape."""
        if self._cached_drift is None or self._cached_drift[0] is not y or self._cached_drift[1] != float(t):
            drift, _ = self.sde(y.reshape(self.x.shape).to(self.x.dtype), t)
            self.cache_drift(y, t, drift.reshape(y.shape).to(y.dtype))
        assert self._cached_drift is not None
        return self._cached_drift[2]

    def cache_drift(self, y: Tensor, t: Tensor, drift: Tensor) -> None:
        """Store the drift at y and t for the next call of `f`."""
        self._cached_drift = (y, float(t), drift)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the square root of w. NFE: none."""
        return self.sde.coefficient(t).sqrt().to(y).expand(y.shape)

    def __call__(self, t: Tensor, s: Tensor) -> Tensor:
        """Return the increment of the Brownian motion."""
        return (s - t).sqrt() * flatten_rows(self.noise(upcast(self.x), t, s))
