"""Solvers of SDEs from torchsde, on a grid of times and with noise from a source."""

from itertools import pairwise

import torch
from torch import Tensor

from .noise import white
from .one_step import check_rising
from .precision import check_states, flat, wide
from .protocols import NoiseSource
from .sde import SDE

ITO = ("euler", "milstein")
STRATONOVICH = ("heun", "midpoint", "euler_heun", "reversible_heun")


@torch.no_grad()
def sdeint(sde: SDE, x: Tensor, times: Tensor, *, method: str = "euler", noise: NoiseSource = white) -> Tensor:
    """Return the state, of x's shape (B, *) and dtype, that torchsde's `method` reaches from x; no gradients are kept.

    One step from each time to the next. As w does not depend on the state, Ito's and Stratonovich's SDEs are one.

    Args:
        sde: asked once for every drift that the method needs.
        x: the state at times[0].
        times: a rising grid, (N,), N >= 2.
        method: one of those that need increments only: euler, milstein, heun, midpoint, euler_heun, reversible_heun;
            `srk` and `log_ode` ask for Levy areas, which increments do not give.
        noise: gives the increments.

    Raises:
        ValueError: an unknown method, no grid, or w not finite at a time that the method visits.
    """
    import torchsde  # noqa: PLC0415 (it takes a second, and most samplers do without)

    if method not in ITO + STRATONOVICH:
        raise ValueError(f"give a method of {', '.join(ITO + STRATONOVICH)}; got '{method}'")
    times = check_rising(times)
    check_states(x)
    if len(times) < 2:
        raise ValueError(f"times must have at least two entries, got {times.tolist()}")
    if not x.numel():
        return x
    adapter = _Adapter(sde, x, noise, "ito" if method in ITO else "stratonovich")
    state, memory = flat(x).to(wide(x.dtype)), None
    for step in pairwise(times):
        t, s = step
        states, memory = torchsde.sdeint(
            adapter,
            state,
            torch.stack(step),
            bm=adapter,
            method=method,
            dt=2 * (s - t),  # one step, however s - t is rounded
            extra=True,
            extra_solver_state=memory or None,
        )
        state = states[-1]
        if memory:  # reversible_heun's: drift, noise and state of its own
            adapter.remember(state, s, memory[0])
    return state.reshape(x.shape).to(x.dtype)


class _Adapter:
    """An SDE and its Brownian motion, with flat states, as torchsde asks for them."""

    noise_type = "diagonal"
    levy_area_approximation = "none"

    def __init__(self, sde: SDE, x: Tensor, noise: NoiseSource, sde_type: str):
        self.sde = sde
        self.x = x
        self.noise = noise
        self.sde_type = sde_type
        self.shape = tuple(flat(x).shape)
        self._last: tuple[Tensor, float, Tensor] | None = None

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift; asked twice for the same, as torchsde does to see its shape, it is computed once."""
        if self._last is None or self._last[0] is not y or self._last[1] != float(t):
            drift, _ = self.sde(y.reshape(self.x.shape).to(self.x.dtype), t)
            self.remember(y, t, drift.reshape(y.shape).to(y.dtype))
        assert self._last is not None
        return self._last[2]

    def remember(self, y: Tensor, t: Tensor, drift: Tensor) -> None:
        """Let that be the answer, should the drift at y and t be asked for next."""
        self._last = (y, float(t), drift)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the square root of w, which needs no network."""
        return self.sde.coefficient(t).sqrt().to(y).expand(y.shape)

    def __call__(self, t: Tensor, s: Tensor) -> Tensor:
        """Return the increment of the Brownian motion."""
        x = self.x.to(wide(self.x.dtype))
        return (s - t).sqrt() * flat(self.noise(x, t, s))
