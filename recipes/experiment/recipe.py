"""The recipe: all settings of an experiment as one frozen, validated value."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ..support.schema import Section
from . import slots
from .components import Component
from .field_types import Batch, Bins, Count, Draws, Images, Interval, Precision, Steps, Threads, Times
from .sampler import Sampler


class Optimizer(Section):
    """AdamW. The learning rate rises linearly over the first `warmup` steps.

    Then it is constant, or falls along half a cosine or linearly to `final` times `lr` at the last step.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | Literal["none"] = "none"
    """The largest norm of the gradient; longer gradients are scaled down to it."""


Decay = Annotated[float, Field(ge=0, lt=1)]


def width_name(width: float) -> str:
    """Return the name of a power-function EMA in checkpoints, by its relative width."""
    return f"width-{width}"


class EMA(Section):
    """Exponential moving averages (EMA) of the weights. Samples are generated with the one of `decay`.

    Step k uses min(decay, (1 + k) / (10 + k)), so that the average of a short run spans the run. `more` are decays of
    further EMAs. `widths` are the relative standard deviations of power-function EMAs, from which an EMA of any length
    can be computed after training (EDM2, arXiv 2312.02696, sec. 3). The largest, 1 / sqrt(12), is the plain mean.
    """

    decay: Decay = 0.9999
    more: tuple[Decay, ...] = ()
    widths: tuple[Annotated[float, Field(gt=0, lt=12**-0.5)], ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the EMAs in checkpoints: `ema`, those of `more`, and those of `widths`."""
        return ["ema", *(f"ema-{decay}" for decay in self.more), *map(width_name, self.widths)]


class Train(Section):
    """Length, batches, times and initial weights of training."""

    steps: Steps
    batch: Batch
    """Images in a step, over all processes."""
    label_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The probability that an image is mirrored."""
    precision: Precision = "float32"
    """The precision of the network's matmuls. Times, loss, norms, weights and EMAs are float32."""
    patience: Count = 10
    """The number of steps in a row that may be skipped because loss or gradient are not finite."""
    times: Annotated[Component, slots.TIMES] = Field(default={}, validate_default=True)
    """The distribution of times over the interval."""
    interval: Interval = "auto"
    """The times to train on. `auto` is all times at which the loss is finite (`experiment.auto_values`)."""
    init: str = "none"
    """The initial weights: a file of released weights, or the folder of a run. `none` is random initialisation."""
    coupling: Annotated[Component | None, slots.COUPLING] = None
    """The coupling of noise and images. None is independent."""


class Compute(Section):
    """How training is computed. These settings change rounding errors, but nothing else."""

    parallel: Literal["ddp", "fsdp", "hybrid"] = "ddp"
    """How processes hold the weights: all of them; shards over all processes; or shards within each machine."""
    gradient_accumulation: Count = 1
    """Micro-batches per process and step, over which gradients are accumulated."""
    compile: bool = False
    """Whether the network's blocks are compiled, for training, and by default for sampling."""
    activation_checkpointing: bool = False
    """Whether activations inside a block are computed again in the backward pass, instead of stored."""
    deterministic: bool = False
    """Whether training uses only algorithms that repeat to the bit on a GPU; they may be slower."""
    workers: Threads = 0
    """Threads that load the images of the next steps. With 0, each step loads its images when it starts."""


class Every(Section):
    """The interval, in steps, of something that is done regularly and after the last step."""

    every: Count = 1000


class Checkpoint(Every):
    """When checkpoints are saved. The newest `keep` remain, and all whose step is a multiple of `milestone`."""

    keep: Count = 3
    milestone: Count | Literal["none"] = "none"


class Log(Every):
    """Metrics, which go to metrics.jsonl and to `sinks`. The loss is logged in `bins` intervals of time as well."""

    every: Count = 100
    bins: Bins = 10
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()


class Guidance(Section):
    """Classifier-free guidance. Scale 1 turns it off; the official code guides the first 3 channels only."""

    scale: float = 1.0
    interval: Times = (0.0, 1.0)
    channels: Count | Literal["all"] = "all"


class Evaluation(Section):
    """What `sitkit evaluate` does: `draws` sets of `num` samples; `auto` is the number of held-out images."""

    num: Images | Literal["auto"] = "auto"
    draws: Draws = 1
    labels: Literal["random", "balanced"] = "random"
    """Random classes, as in the papers, or each class equally often, which lowers FID."""
    unguided: bool = False
    """Whether to evaluate samples without guidance as well, if the recipe has guidance."""
    features: Annotated[Component, slots.FEATURES] = Field(default={}, validate_default=True)
    """The extractor of features of images. The papers use Inception."""


class Recipe(Section):
    """All settings of an experiment. `read_recipe` reads one from a file."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: Annotated[Component, slots.DATA]
    source: Annotated[Component | None, slots.SOURCE] = None
    """What a two-sided path starts from; None is noise. With `condition`, the network sees it without its noise."""
    path: Annotated[Component, slots.PATH] = Field(default={}, validate_default=True)
    objective: Annotated[Component, slots.OBJECTIVE] = Field(default={}, validate_default=True)
    backbone: Annotated[Component, slots.BACKBONE]
    optimizer: Optimizer = Optimizer()
    ema: EMA = EMA()
    train: Train
    compute: Compute = Compute()
    checkpoint: Checkpoint = Checkpoint()
    log: Log = Log()
    grid: Every = Every()
    sampler: Sampler = Sampler()
    guidance: Guidance = Guidance()
    evaluation: Evaluation = Evaluation()

    @property
    def two_sided(self) -> bool:
        """Whether the path is from a source to data, instead of from noise to data."""
        return slots.is_two_sided_path(self.path.target)

    @property
    def conditions_on_source(self) -> bool:
        """Whether the network takes the source as further input channels."""
        return self.source is not None and bool(getattr(self.source.fields, "condition", False))

    def build_objective(self) -> Any:
        """Return the objective of the recipe's path.

        Raises:
            UserError: path or objective refuses its fields.
        """
        path = self.path.build()
        return self.objective.build(path=path, bridge=path)

    @model_validator(mode="after")
    def _source_fits(self) -> Self:
        """Refuse combinations of source, path, objective and sampler that are not valid."""
        path, objective, sampler = self.path.kind, self.objective.kind, self.sampler
        if slots.is_two_sided_objective(self.objective.target) != self.two_sided:
            other = "objective.kind = 'bridging'" if self.two_sided else "path.kind = 'bridge'"
            kind = "a two-sided path" if self.two_sided else "a path from noise"
            raise ValueError(f"path '{path}' is {kind}, which objective '{objective}' does not take: set {other}")
        if self.source is not None:
            if not (self.two_sided or self.conditions_on_source):
                raise ValueError(
                    f"source '{self.source.kind}' needs a two-sided path: set path.kind = 'bridge' and "
                    "objective.kind = 'bridging'; or set source.condition = true to sample from noise, given the source"
                )
            if objective == "hybrid":
                raise ValueError("a source needs objective.kind = 'bridging' or 'matching', not 'hybrid'")
            if self.train.coupling is not None:
                raise ValueError(f"source '{self.source.kind}' is a coupling: train.coupling must be independent")
        if (self.source or self.two_sided) and slots.needs_loss_curve(sampler.w):
            raise ValueError(f"w = '{sampler.w.kind}' is for a path from noise without a source: set another sampler.w")
        if not self.two_sided:
            return self
        if sampler.path:
            raise ValueError(f"sampler.path must be 'auto' for the two-sided path '{path}'")
        if sampler.solver and slots.takes_path(sampler.solver.target):
            raise ValueError(
                f"sampler.solver '{sampler.solver.kind}' is for paths from noise; for the two-sided path '{path}' set "
                "sampler.solver = 'auto', 'euler', 'heun' or 'rk4', or, for sampler.kind = 'sde', 'euler_maruyama' or "
                "'stochastic_heun'"
            )
        if self.guidance.channels != "all":
            raise ValueError(f"guidance.channels must be 'all' for the two-sided path '{path}'")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse combinations of sections that are not valid."""
        solver, coupling = self.sampler.solver, self.train.coupling
        if solver and solver.kind == "learned_ancestral" and self.objective.kind != "hybrid":
            raise ValueError("sampler.solver 'learned_ancestral' needs a learned variance: objective.kind = 'hybrid'")
        if coupling is None:
            return self
        predict = getattr(self.objective.fields, "predict", None)
        if (self.sampler.kind == "sde" and not self.two_sided) or (predict and predict.kind == "score"):
            raise ValueError(
                "train.coupling must be independent for sampler.kind = 'sde' and objective.predict = 'score': "
                "under any other, the score does not follow from the velocity"
            )
        if self.train.batch % getattr(coupling.fields, "block", 1):
            raise ValueError("train.coupling.block must divide train.batch")
        return self
