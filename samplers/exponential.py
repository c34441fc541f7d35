r"""Exponential multistep methods, one call a step: order up to 3 for the ODE, weak order 2 for every SDE of a path.

**What is exact.** Let $D(x, t) = E[x \mid x_t]$ be the data expected from the state. Velocity and score in terms of it
turn $dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$ into

$$dX = \Big(\frac{\dot\sigma}{\sigma} - \frac{w}{2\sigma^2}\Big)X\,dt
     + \Big(\dot\alpha - \frac{\alpha\dot\sigma}{\sigma} + \frac{\alpha w}{2\sigma^2}\Big)D\,dt + \sqrt{w}\,dW,$$

which is linear but for D. With $\Phi(t, s) = \frac{\sigma_s}{\sigma_t}\exp(-\frac12\int_t^s\frac{w}{\sigma^2}\,du)$ and
$m(u) = \alpha_u\Phi(u, s)$, which rises from $\alpha_t\Phi(t, s)$ to $\alpha_s$, its solution is

$$X_s = \Phi(t, s)X_t + \int_t^s D\,dm(u) + \sigma_s\sqrt{1 - e^{-\int_t^s w/\sigma^2}}\,z.$$

The noise z is standard normal: the stochastic integral over the clock $\exp(\int w/\sigma^2)$. By
$\lambda = \log(\alpha/\sigma)$, $w\,dt/\sigma^2 = 2(w/w_{KL})\,d\lambda$ is a smooth integrand, and all that a general
w asks to be computed by quadrature; w = `KL` has $\Phi = \sigma_s^2\alpha_t/(\sigma_t^2\alpha_s)$, and w = 0
$\Phi = \sigma_s/\sigma_t$. Both limits exist: where alpha = 0, KL forgets the state (Phi = 0), and where sigma = 0,
$X_s = D$.

**What is not.** D is extrapolated by the polynomial, in some variable u(lambda), through its last `order` values, and
integrated against m (Adams and Bashforth). An infinite variable, such as lambda itself, forces a low order at both
ends. Ours is $u = \alpha/\sqrt{\alpha^2+\sigma^2}$, finite at both: along the ODE of standard normal data D is linear
in u, so that order 2 has no error there but that of its first step. The values of D on either side of a step share its
noise, which is what makes the weak order of SDEs, whose noise is additive, that of the ODE up to 2.

Where a step forgets its start, that is where w / sigma^2 is large, as of a constant w near the data, extrapolation
adds to the noise of D instead: a lower order does better there.

**The corrector** repeats a step with the value of D at its end in the polynomial (Adams and Moulton), which the next
step needs anyway: it costs no call, and D is not asked again at the corrected state.

**Special cases.** Order 1 without the corrector is `DDIM` for w = 0 and `Ancestral` for w = `KL`. In the variable
lambda, order 2 is DPM-Solver++(2M) (arXiv 2211.01095) for w = 0 and SDE-DPM-Solver++(2M) for KL, each in its exact
form, and SA-Solver (arXiv 2309.05019) has w = tau^2 `KL`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .exponential_steps import ExponentialSteps
from .jumps import jump_at, jumps_of, just_after
from .log_snr import correlation
from .noise import white
from .one_step import at, check_rising, check_times
from .precision import check_states, wide
from .protocols import Diffusion, Field, NoiseSource, Path


@dataclass(frozen=True)
class Exponential:
    """A multistep solver of the ODE, or of the SDE of w: one call of the velocity a step, none at the last time.

    Args:
        velocity: an exact or learnt velocity along `path`.
        path: alpha, sigma and their derivatives are used.
        w: the diffusion coefficient, which may be infinite where alpha = 0; None is the ODE.
        order: how many values of the data prediction a step looks back at, 1 to 3. The error of the ODE falls by at
            least this power of the step size, and that of an SDE's distribution by 2 at least, from order 2 on; the
            corrector adds to it where the start, which knows of few values, allows.
        corrector: whether a step is corrected when the next one has asked the velocity; the first step of
            order 3 always is, or else its start would be of order 2.
        variable: what the data prediction is taken for a polynomial in, as a function of log(alpha / sigma).
        noise: asked once a step.

    Raises:
        ValueError: an order that there is not.
    """

    velocity: Field
    path: Path
    w: Diffusion | None = None
    order: int = 3
    corrector: bool = True
    variable: Callable[[Tensor], Tensor] = correlation
    noise: NoiseSource = white

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, got {self.order}")

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, the first being x itself.

        The state is carried in float32 at least and yielded in x's dtype. A yielded state may be edited in place, by
        torch's operations (what is written through `.data` or `.numpy()` is not seen): the solver then starts anew from
        the edited state, for which it asks the velocity once more. It also starts anew, without another call, at those
        of `times` at which the velocity says that it jumps.

        Raises:
            ValueError: `times` is not a grid (rising, for an SDE), x is not floating point, sigma = 0 at its first
                time, w is not finite inside, or a derivative by times, path or w, or a vmap over them, is asked for.
        """
        grid = (check_times if self.w is None else check_rising)(times)
        check_states(x)
        yield x
        if len(grid) == 1:
            return
        steps = ExponentialSteps(self.path, self.w, grid, self.variable)
        jumps = jumps_of(self.velocity)
        state, dtype = x.to(wide(x.dtype)), x.dtype
        known: list[Tensor] = []  # the data predicted so far, the newest first
        moved, start = state, 0  # the part of a step that asks for no data, and where the solver began
        for n, (t, s) in enumerate(pairwise(grid)):
            jump = jump_at(jumps, t)
            asked = t if jump is None else just_after(jump, s, wide(dtype))
            start = start if jump is None else n
            values = [self._data(state.to(dtype), asked, t), *(known if n > start else [])]
            if n > start and (self.corrector or (n == start + 1 and self.order == 3)):
                state = moved + _combine(steps.weights(n - 1, range(n, n - len(values), -1)), values)
            known = values[: self.order]
            if n:
                shown = _watched(state.to(dtype))
                before = _edits(shown)
                yield shown
                if _edits(shown) != before:
                    state, start = shown.to(state.dtype), n
                    known = [self._data(shown, asked, t)]
            moved = steps.state[n] * state
            if self.w is not None:
                moved = moved + steps.noise[n] * self.noise(state, t, s)
            state = moved + _combine(steps.weights(n, range(n, n - len(known), -1)), known)
        yield state.to(dtype)

    def _data(self, x: Tensor, asked: Tensor, t: Tensor) -> Tensor:
        """Return the data predicted from the state x at time t, by the velocity at the time to ask it."""
        return self.path.data_from_velocity(at(self.velocity, x, asked), x, t)


def _watched(x: Tensor) -> Tensor:
    """Return a state whose edits are counted: a copy of one that inference mode made."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def _edits(x: Tensor) -> int:
    """Return how often a state was edited in place: what torch counts to protect gradients, and without a wait."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x._version


def _combine(weights: list[float], values: list[Tensor]) -> Tensor:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total
