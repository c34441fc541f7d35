r"""Exact fields of a two-sided path between two Gaussian mixtures.

For independent source and data, the state $x_t = \alpha x + \beta x_{src} + \gamma z$ is a mixture over pairs of a
component $N(m, C)$ of the data and a component $N(n, B)$ of the source, with mean $\mu = \alpha m + \beta n$ and
covariance $S = \alpha^2 C + \beta^2 B + \gamma^2$. Given $x_t$ and the pair, with $r = S^{-1}(x_t - \mu)$,

$$E[\dot\alpha x + \dot\beta x_{src}] = \dot\alpha m + \dot\beta n + (\dot\alpha\alpha C + \dot\beta\beta B)\,r,
\qquad E[z] = \gamma r, \qquad s = -r.$$

The mean over the pairs is weighted by their posterior probabilities. The score is finite also where gamma = 0, and so
is the velocity $v - \gamma\dot\gamma s$ wherever gamma gamma_dot is.
"""

import torch
from torch import Tensor

from .exact_fields import check_finite, column, upcast
from .mixture import Mixture
from .protocols import TwoSidedPath


class MixtureBridge:
    """The fields of a two-sided path from one mixture to another, with independent source and data.

    `drift`, `noise`, `velocity` and `score` are fields: functions of points (B, D) and times, a scalar or (B,), to
    (B, D). Results have the dtype of the points and are computed in float32 at least.

    Raises:
        ValueError: the mixtures differ in the number of dimensions, or the path is not two-sided.
    """

    def __init__(self, source: Mixture, data: Mixture, bridge: TwoSidedPath):
        if source.means.shape[1] != data.means.shape[1]:
            raise ValueError(
                "source and data must have the same number of dimensions, "
                f"got {source.means.shape[1]} and {data.means.shape[1]}"
            )
        if not hasattr(bridge, "gamma"):
            raise ValueError(f"MixtureBridge takes a two-sided path, such as Bridge; got {bridge}: use Mixture")
        self.source, self.data, self.bridge = source, data, bridge
        self._weights = torch.outer(source.weights, data.weights).flatten()  # of the K pairs
        self._source_means, self._data_means = _pairs(source.means, data.means)  # (K, D)
        self._source_covariances, self._data_covariances = _pairs(source.covariances, data.covariances)  # (K, D, D)

    def drift(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return E[alpha_dot x + beta_dot x_src | x_t].

        Raises:
            ValueError: alpha_dot or beta_dot is infinite.
        """
        x_t, t = upcast(x), _common_time(t)
        check_finite(
            self.bridge, t, lambda t: self.bridge.alpha_dot(t) + self.bridge.beta_dot(t), "alpha_dot or beta_dot"
        )
        probabilities, residuals = self._posterior(x_t, t)
        return _average(probabilities, self._drifts(x_t, t, residuals)).to(x.dtype)

    def noise(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return E[z | x_t]. It is 0 where gamma = 0."""
        x_t, t = upcast(x), _common_time(t)
        return _average(*self._posterior(x_t, t)).mul(column(self.bridge.gamma(t), x_t)[..., 0]).to(x.dtype)

    def score(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the score, the gradient of the log-density of x_t. It is finite also where gamma = 0."""
        return -_average(*self._posterior(upcast(x), _common_time(t))).to(x.dtype)

    def velocity(self, x: Tensor, t: Tensor, /) -> Tensor:
        """Return the velocity E[alpha_dot x + beta_dot x_src + gamma_dot z | x_t].

        Raises:
            ValueError: alpha_dot, beta_dot or gamma gamma_dot is infinite.
        """
        return self.scored(x, t)[0]

    def scored(self, x: Tensor, t: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return velocity and score, for `samplers.SDE.of`.

        Raises:
            ValueError: alpha_dot, beta_dot or gamma gamma_dot is infinite.
        """
        x_t, t, bridge = upcast(x), _common_time(t), self.bridge
        check_finite(
            bridge,
            t,
            lambda t: bridge.alpha_dot(t) + bridge.beta_dot(t) + bridge.gamma_gamma_dot(t),
            "alpha_dot, beta_dot or gamma gamma_dot",
        )
        probabilities, residuals = self._posterior(x_t, t)
        velocities = self._drifts(x_t, t, residuals) + column(bridge.gamma_gamma_dot(t), x_t) * residuals
        return _average(probabilities, velocities).to(x.dtype), -_average(probabilities, residuals).to(x.dtype)

    def along(self, t: float) -> Mixture:
        """Return the distribution of the state x_t, which is also a mixture."""
        time = torch.tensor(t, dtype=torch.float64, device=self._weights.device)
        means, covariances = self._marginals(self._source_means, time)
        return Mixture(self._weights, means[0], covariances[0])

    def _posterior(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities of the pairs, (B, K), and r = S^-1 (x_t - mu), (B, K, D)."""
        if x.ndim != 2 or x.shape[1] != self._data_means.shape[1]:
            raise ValueError(f"these mixtures take x of shape (B, {self._data_means.shape[1]}), got {tuple(x.shape)}")
        means, covariances = self._marginals(x, t)
        roots = torch.linalg.cholesky_ex(covariances).L  # unlike `cholesky`, without a synchronisation
        gaps = x[:, None] - means
        whitened = torch.linalg.solve_triangular(roots, gaps[..., None], upper=False)
        residuals = torch.linalg.solve_triangular(roots.mT, whitened, upper=True)[..., 0]
        log_densities = -whitened[..., 0].square().sum(2) / 2 - roots.diagonal(dim1=-2, dim2=-1).log().sum(2)
        return (self._weights.to(x).log() + log_densities).softmax(1), residuals

    def _marginals(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means, (1 or B, K, D), and covariances, (1 or B, K, D, D), of x_t, in x's dtype."""
        alpha, beta, gamma = (column(f(t), x) for f in (self.bridge.alpha, self.bridge.beta, self.bridge.gamma))
        means = alpha * self._data_means.to(x) + beta * self._source_means.to(x)
        unit = torch.eye(means.shape[2], dtype=x.dtype, device=x.device)
        a, b, c = (value[..., None] ** 2 for value in (alpha, beta, gamma))
        return means, a * self._data_covariances.to(x) + b * self._source_covariances.to(x) + c * unit

    def _drifts(self, x: Tensor, t: Tensor, residuals: Tensor) -> Tensor:
        """Return the drift given x_t and the pair, (B, K, D)."""
        bridge = self.bridge
        alpha, beta, alpha_dot, beta_dot = (
            column(f(t), x) for f in (bridge.alpha, bridge.beta, bridge.alpha_dot, bridge.beta_dot)
        )
        by_data, by_source = (
            torch.einsum("kij,bkj->bki", covariances.to(x), residuals)
            for covariances in (self._data_covariances, self._source_covariances)
        )
        data, source = self._data_means.to(x) + alpha * by_data, self._source_means.to(x) + beta * by_source
        return alpha_dot * data + beta_dot * source


def _pairs(source: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
    """Return values of the components, (N, ...) and (M, ...), for all pairs: (N M, ...) each."""
    return source.repeat_interleave(len(data), 0), data.repeat(len(source), *[1] * (data.ndim - 1))


def _common_time(t: Tensor) -> Tensor:
    """Return times in float32 at least, and as a scalar if they are one expanded number, as solvers pass them."""
    t = upcast(t)
    return t[0] if t.ndim and len(t) > 1 and t.stride(0) == 0 else t


def _average(probabilities: Tensor, values: Tensor) -> Tensor:
    """Return the mean over the pairs, (B, D), of values (B, K, D)."""
    return torch.sum(probabilities[..., None] * values, 1)
