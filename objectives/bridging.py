"""The objective of two-sided paths: a network that predicts drift and noise."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .channels import split_channels
from .converted_output import ConvertedOutput
from .kinds_of_paths import check_two_sided
from .precision import call_model, per_sample_mean, upcast
from .protocols import Field, ScoredField, TwoSidedPath


@dataclass(frozen=True)
class Bridging:
    r"""The squared error of a network that predicts the drift v and the noise eta of a two-sided path.

    $$\ell = \mathrm{mean}\,\|(\hat v, \hat\eta) - (\dot\alpha x + \dot\beta x_{src}, z)\|^2$$ over all 2 C channels,
    for states $x_t = \alpha x + \beta x_{src} + \gamma z$ (Albergo, Boffi and Vanden-Eijnden, arXiv 2303.08797,
    sec. 2.4 and 5). The expected loss is least at $v = E[\dot\alpha x + \dot\beta x_{src} \mid x_t]$ and
    $\eta = E[z \mid x_t]$. All targets are finite at t = 0 and t = 1, also where gamma_dot, and with it a sample of the
    velocity, is infinite. The source may depend on the data.

    With `antithetic`, the loss is the mean of the losses at z and -z. Near the ends, where gamma is small, the two
    states are close, and the terms that are linear in z cancel. The gradient then has a smaller variance. Each loss
    takes two network evaluations instead of one.

    An `MLP` with `out_features`, and the method `full` of a `SiT` with `learn_sigma`, return twice the channels.

    Args:
        bridge: the two-sided path.
        antithetic: whether to average over z and -z.

    Raises:
        ValueError: the path is not two-sided.
    """

    bridge: TwoSidedPath
    antithetic: bool = False

    def __post_init__(self) -> None:
        check_two_sided(self.bridge, "Bridging")

    def __call__(self, model: Field, x: Tensor, source: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        """Return the loss of each sample, (B,), in float32 at least.

        The model is evaluated at states of x's dtype and at times of that dtype or float32, whichever is wider.

        Args:
            model: the network as a field, with twice the channels of x.
            x: data, (B, C, ...).
            source: samples of the source, (B, C, ...), coupled with the data in any way.
            z: noise, (B, C, ...), independent of data and source.
            t: times, (B,).

        Raises:
            ValueError: shapes do not match.
        """
        if t.shape != x.shape[:1]:
            raise ValueError(f"t must have shape ({len(x)},) as x has {len(x)} rows, got {tuple(t.shape)}")
        x, source, z, t, dtype = upcast(x), upcast(source), upcast(z), upcast(t), x.dtype
        drift = self.bridge.drift(x, source, t)

        def error(z: Tensor) -> Tensor:
            output = call_model(model, self.bridge.mix(x, source, z, t), t, dtype)
            v, eta = _split(output, x)
            return per_sample_mean(torch.cat([v - drift, eta - z], 1).square())

        return (error(z) + error(-z)) / 2 if self.antithetic else error(z)

    def field(self, model: Field, /) -> Field:
        """Return the velocity field b = v + gamma_dot eta. It raises ValueError where gamma_dot is infinite."""
        return ConvertedOutput(model, self._velocity, channels=2)

    def scored(self, model: Field, /) -> ScoredField:
        """Return the function (x_t, t) -> (velocity, score), which evaluates the model once.

        It raises ValueError where gamma = 0, as the score -eta / gamma is infinite there. Its attribute `velocity` is
        the velocity field.
        """
        return ScoredOutput(model, self._velocity_and_score, channels=2, field_of=self.field)

    def _velocity(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.bridge.velocity_from(*_split(output, x_t), t)

    def _velocity_and_score(self, output: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        drift, noise = _split(output, x_t)
        return self.bridge.velocity_from(drift, noise, t), self.bridge.score_from_noise(noise, t)


@dataclass(frozen=True, eq=False)
class ScoredOutput(ConvertedOutput[tuple[Tensor, Tensor]]):
    """Velocity and score of a network, with the velocity alone as attribute.

    Args:
        field_of: the function from the network to the velocity field.
    """

    field_of: Callable[[Field], Field] = field(kw_only=True)

    @property
    def velocity(self) -> Field:
        """The velocity field of the same network."""
        return self.field_of(self.model)


def _split(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two halves of the output's channels: drift and noise."""
    return split_channels(output, x, "drift and noise")
