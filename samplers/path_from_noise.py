"""The check that a path goes from noise to data.

Solvers that use the path need a score, a noise and a data prediction that are functions of the velocity. On a two-sided
path, x_t = alpha x + beta x_src + gamma z, they are not. The SDE in terms of the predicted data D and source S is still
linear in the state,

dX = c X dt + (alpha_dot - alpha c) D dt + (beta_dot - beta c) S dt + sqrt(w) dW, c = gamma_dot/gamma - w/(2 gamma^2),

but it takes two predictions instead of one, and there is no signal-to-noise ratio that increases from t = 0 to t = 1,
in which `Exponential` interpolates and the grids of `plan` are spaced. So these refuse two-sided paths.
"""

from typing import Any

SOLVERS = "solve the ODE of its velocity by Euler, Heun or RK4, and its SDEs by SDE.of(scored, w)"
DIFFUSIONS = "use Constant, SineSquared, or any function of time such as its gamma"


def check_from_noise(path: Any, user: str, instead: str = SOLVERS) -> None:
    """Raise ValueError unless a path goes from noise to data. The message says what uses it, and what to do instead."""
    if not hasattr(path, "sigma"):
        raise ValueError(
            f"{user} takes a path from noise to data, with alpha and sigma; got {path}: for a two-sided path, {instead}"
        )
