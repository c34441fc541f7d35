r"""Exponential multistep solvers: order up to 3 for the ODE, weak order 2 for every SDE of a path, one NFE per step.

**Exact solution.** Let $D(x, t) = E[x \mid x_t]$ be the data prediction. Written in terms of D, the SDE
$dX = (v + \frac{w}{2} s)\,dt + \sqrt{w}\,dW$ is

$$dX = \Big(\frac{\dot\sigma}{\sigma} - \frac{w}{2\sigma^2}\Big)X\,dt
     + \Big(\dot\alpha - \frac{\alpha\dot\sigma}{\sigma} + \frac{\alpha w}{2\sigma^2}\Big)D\,dt + \sqrt{w}\,dW.$$

It is linear except for D. Define $\Phi(t, s) = \frac{\sigma_s}{\sigma_t}\exp(-\frac12\int_t^s\frac{w}{\sigma^2}\,du)$
and $m(u) = \alpha_u\Phi(u, s)$, which increases from $\alpha_t\Phi(t, s)$ to $\alpha_s$. The solution is

$$X_s = \Phi(t, s)X_t + \int_t^s D\,dm(u) + \sigma_s\sqrt{1 - e^{-\int_t^s w/\sigma^2}}\,z$$

with standard normal z. Only $\int w/\sigma^2$ needs quadrature. With $\lambda = \log(\alpha/\sigma)$, the integrand
$w\,dt/\sigma^2 = 2(w/w_{KL})\,d\lambda$ is smooth. For w = `KL`, $\Phi = \sigma_s^2\alpha_t/(\sigma_t^2\alpha_s)$, and
for w = 0, $\Phi = \sigma_s/\sigma_t$. Both limits are finite: Phi = 0 for `KL` where alpha_t = 0, and $X_s = D$ where
sigma_s = 0.

**Approximation.** D is replaced by the polynomial, in a variable u(lambda), through its last `order` values, which is
integrated exactly against dm (Adams-Bashforth). The default variable is $u = \alpha/\sqrt{\alpha^2+\sigma^2}$. Unlike
lambda, it is finite at both ends, so that no lower order is needed there. On standard normal data D is linear in u
along the ODE, and order 2 is exact after the first step. The noise of an SDE is additive, and the values of D on both
sides of a step depend on the same noise. Hence the weak order of SDEs equals the order of the ODE up to 2.

Use a lower order where w / sigma^2 is large, such as a constant w near the data. There the state depends little on
the previous state, and extrapolation amplifies the noise in D.

**Corrector.** After D is evaluated at the end of a step, the step is repeated with a polynomial that includes this
value (Adams-Moulton). The corrector costs no NFE: the next step needs the value anyway, and D is not evaluated at the
corrected state.

**Special cases.** Order 1 without corrector is `ExponentialEuler`, which is `DDIM` for w = 0 and `Ancestral` for
w = `KL`. In the variable lambda, order 2 is DPM-Solver++(2M) (arXiv 2211.01095) for w = 0 and SDE-DPM-Solver++(2M) for
`KL`, each in its exact form. SA-Solver (arXiv 2309.05019) uses w = tau^2 `KL`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .exponential_coefficients import ExponentialCoefficients
from .exponential_euler import ExponentialEuler
from .jumps import jump_at, jumps_of, next_after
from .log_snr import correlation
from .noise import white
from .one_step import at, check_increasing, check_times
from .path_from_noise import check_from_noise
from .protocols import Diffusion, Field, NoiseSource, Path
from .sde import check_diffusion
from .states import check_states, upcast, upcast_dtype
from .transition import Transition


@dataclass(frozen=True)
class Exponential:
    """An exponential multistep solver of the ODE, or of the SDE of w. NFE: one per step, none at the last time.

    Gradients with respect to the state and the network are recorded. Those with respect to times, path and w are
    refused; `ExponentialEuler` has them. Times of the ODE may decrease, from a time at which sigma > 0.

    Args:
        velocity: a velocity field along `path`.
        path: the path, of which alpha, sigma and their derivatives are used.
        w: the diffusion coefficient, which may be infinite where alpha = 0. None is the ODE.
        order: the number of data predictions that a step uses, 1 to 3. The error of the ODE has at least this order in
            the step size. The weak order of an SDE is 2 from order 2 on. The corrector increases the order, unless the
            lower order of the first steps dominates.
        corrector: whether to correct each step after the next NFE. With order 3, the first step is always corrected,
            because otherwise its error would be of order 2.
        variable: the variable of the interpolation polynomial, as a function of log(alpha / sigma).
        noise: the noise source, called once per step.

    Raises:
        ValueError: `order` is not 1, 2 or 3, or w is no function.
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
        check_diffusion(self.w)
        check_from_noise(self.path, "Exponential")

    def __call__(self, x: Tensor, times: Tensor, /) -> Iterator[Tensor]:
        """Yield the state at each of `times`, starting with x itself.

        The state is carried in float32 at least and yielded in x's dtype. A yielded state may be edited in place by
        torch operations (changes through `.data` or `.numpy()` are not detected). The solver then restarts from the
        edited state, which costs one more NFE. It also restarts, without another NFE, at those of `times` that are
        jumps of the velocity.

        Raises:
            ValueError: `times` is not a grid (increasing, for an SDE); x is not floating point; sigma = 0 at the first
                time; w is negative or not finite inside the grid; or a gradient by times, path or w, or a vmap over
                them, is requested.
        """
        grid = (check_times if self.w is None else check_increasing)(times)
        check_states(x)
        yield x
        if len(grid) == 1:
            return
        coefficients = ExponentialCoefficients(self.path, self.w, grid, self.variable)
        jumps = jumps_of(self.velocity)
        dtype, state = x.dtype, upcast(x)
        linear_part = state  # the part of the last step that does not depend on predicted data
        history: list[Tensor] = []  # the data predicted at the last times, newest first
        for n, (t, s) in enumerate(pairwise(grid)):
            jump = jump_at(jumps, t)
            t_velocity = t if jump is None else next_after(jump, s, upcast_dtype(dtype))
            if jump is not None:
                history = []
            data = self._predict_data(state.to(dtype), t_velocity, t)
            if self._corrects_after(history):
                state = linear_part + coefficients.integral(n - 1, n, [data, *history])
            history = [data, *history][: self.order]
            if n:
                shown = _with_version_counter(state.to(dtype))
                version = _version(shown)
                yield shown
                if _version(shown) != version:  # it was edited: restart
                    state = shown.to(state.dtype)
                    history = [self._predict_data(shown, t_velocity, t)]
            linear_part = coefficients.state[n] * state
            if self.w is not None:
                linear_part = linear_part + coefficients.noise[n] * self.noise(state, t, s)
            state = linear_part + coefficients.integral(n, n, history)
        yield state.to(dtype)

    def transition(self, x: Tensor, t: Tensor, s: Tensor, /) -> Transition:
        """Return the distribution of the state at time s given the state x at time t, for order 1 without corrector.

        Raises:
            ValueError: the step depends on earlier ones, because `order` is 2 or 3 or there is a corrector.
        """
        if self.order > 1 or self.corrector:
            kind = f"of order {self.order} with{'' if self.corrector else 'out'} corrector"
            raise ValueError(
                f"a step of Exponential {kind} depends on earlier steps, so it has no transition density: use "
                "ExponentialEuler, or order=1 and corrector=False"
            )
        return ExponentialEuler(self.velocity, self.path, self.w, noise=self.noise).transition(x, t, s)

    def _predict_data(self, x: Tensor, t_velocity: Tensor, t: Tensor) -> Tensor:
        """Return the data predicted at state x and time t. The velocity is called at `t_velocity`, t or just after."""
        return self.path.data_from_velocity(at(self.velocity, x, t_velocity), x, t)

    def _corrects_after(self, history: list[Tensor]) -> bool:
        """Return whether to correct the last step, given the data predicted since the start or restart."""
        is_first_step = len(history) == 1
        return bool(history) and (self.corrector or (self.order == 3 and is_first_step))


def _with_version_counter(x: Tensor) -> Tensor:
    """Return x, or a copy of it if it is an inference tensor, since those do not count in-place edits."""
    if not x.is_inference():
        return x
    with torch.inference_mode(False):
        return x.clone()


def _version(x: Tensor) -> int:
    """Return the number of in-place edits of x, which torch counts for autograd. No synchronisation is needed."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x._version
