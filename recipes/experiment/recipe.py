"""The recipe: all settings of an experiment as one frozen, validated value."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..support.schema import Section
from . import slots
from .components import Component

Count = Annotated[int, Field(ge=1, le=2**63 - 1)]
Steps = Annotated[int, Field(ge=1, le=10**8 - 1)]
"""Names of checkpoints have eight digits."""
Batch = Annotated[int, Field(ge=1, le=2**20)]
"""The limit catches mistakes: sample numbers, times and labels of a whole batch are held in memory."""
Bins = Annotated[int, Field(ge=1, le=10_000)]
"""Intervals of [0, 1]: each record of metrics has a value for each."""
SolverSteps = Annotated[int, Field(ge=1, le=10**6)]
"""Networks get times as float32: with more steps, times near t = 1 would be equal."""
Threads = Annotated[int, Field(ge=0, le=1024)]
Images = Annotated[int, Field(ge=2, le=10**9)]
Draws = Annotated[int, Field(ge=1, le=10**6)]
"""Each draw has its own seed; the seeds of further draws follow that of the first."""


def _ordered(interval: tuple[float, float]) -> tuple[float, float]:
    if not interval[0] < interval[1]:
        raise ValueError(f"should be [low, high] with low < high, got {list(interval)}")
    return interval


Time = Annotated[float, Field(ge=0, le=1)]
Times = Annotated[tuple[Time, Time], AfterValidator(_ordered)]
Interval = Literal["auto"] | Times
Precision = Literal["float32", "tf32", "bf16"]


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


class Sampler(Section):
    """How samples are generated.

    `solver` takes `steps` steps through `interval`, at `times`. If `last` is not `none`, the last step is of that kind
    and of length `last_step`. `auto` stands for the settings of `samplers.plan`, with one network evaluation a step, or
    for those that another solver needs (`experiment.auto_values`).
    """

    kind: Literal["ode", "sde"] = "ode"
    path: Annotated[Component | None, slots.SAMPLING_PATH] = None
    """The path to sample along. `auto` is the path of training; any other path uses `samplers.reparametrise`."""
    solver: Annotated[Component | None, slots.SOLVER] = None
    steps: SolverSteps = 50
    times: Annotated[Component | None, slots.TIME_GRID] = None
    """The times of the steps: a function of `samplers.grids`."""
    interval: Interval = "auto"
    last: Literal["auto", "none", "euler", "tweedie", "mean"] = "auto"
    last_step: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    w: Annotated[Component, slots.DIFFUSION] = Field(default={}, validate_default=True)
    precision: Precision = "float32"
    """The precision of the network's matmuls. The solver computes in float32."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.solver and not slots.solves(self.solver.target, self.kind):
            raise ValueError(f"solver '{self.solver.kind}' does not fit kind = '{self.kind}'; use 'auto'")
        if self.kind == "ode" and self.last == "mean":
            raise ValueError("last = 'mean' is for SDEs; for an ODE: auto, none, euler or tweedie")
        if self.path and self.solver and slots.takes_network(self.solver.target):
            raise ValueError(f"solver '{self.solver.kind}' takes the network as it was trained: path must be 'auto'")
        if self.path and self.kind == "sde" and slots.needs_loss_curve(self.w):
            raise ValueError(f"w = '{self.w.kind}' is computed along the path of training: path must be 'auto'")
        return self


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

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse combinations of sections that are not valid."""
        solver, coupling = self.sampler.solver, self.train.coupling
        if solver and solver.kind == "learned_ancestral" and self.objective.kind != "hybrid":
            raise ValueError("sampler.solver 'learned_ancestral' needs a learned variance: objective.kind = 'hybrid'")
        if coupling is None:
            return self
        predict = getattr(self.objective.fields, "predict", None)
        if self.sampler.kind == "sde" or (predict and predict.kind == "score"):
            raise ValueError(
                "train.coupling must be independent for sampler.kind = 'sde' and objective.predict = 'score': "
                "under any other, the score does not follow from the velocity"
            )
        if self.train.batch % getattr(coupling.fields, "block", 1):
            raise ValueError("train.coupling.block must divide train.batch")
        return self
