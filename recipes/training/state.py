"""The training state: network, EMA weights, optimizer, meters and step; its saving and loading."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.images import Split
from ..experiment.recipe import Recipe
from ..network.build import build_network
from ..network.ema import EMAWeights
from ..storage import checkpoints
from .meters import Meters
from .process_group import ProcessGroup, is_sharded

OPTIMIZER_KEYS = ("step", "exp_avg", "exp_avg_sq")
"""The optimizer's state of each parameter: the step and the two moments of AdamW."""
SHARDS = "trained"
"""The folder of a checkpoint with the shards of network and optimizer, one file per process, if weights are sharded."""


class TrainingState:
    """The network, its EMA weights, the optimizer, the meters, and the number of steps done.

    Args:
        recipe: the experiment.
        split: the data, for their shape and classes.
        group: the processes over which weights may be sharded.
    """

    def __init__(self, recipe: Recipe, split: Split, group: ProcessGroup):
        self.network = build_network(recipe, split).to(group.device)
        self.ema_weights = EMAWeights.of(recipe.ema, lambda: copy.deepcopy(self.network))
        self.sharded = group.world_size > 1 and recipe.compute.parallel != "ddp"
        if self.sharded:
            from .fsdp import shard

            shard([self.network], group, recipe.compute.parallel, recipe.train.precision)
            shard([*self.ema_weights.modules.values()], group, recipe.compute.parallel)
        options = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=True
        )
        self.meters = Meters(recipe.log.bins)
        self.step = 0

    @property
    def ema(self) -> nn.Module:
        """The network with the EMA weights of `ema.decay`, from which samples are generated."""
        return self.ema_weights.modules["ema"]

    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """Return the content of a checkpoint by part. The tensors are not copied."""
        return {
            **self.ema_weights.state_dicts(),
            "model": self.network.state_dict(),
            "optimizer": dict(self._optimizer_state()),
            "meters": self.meters.state_dict(),
        }

    def sharded_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of network and optimizer by unique names. Each process has a shard of them."""
        parts = self.state_dicts()
        return {f"{part}.{key}": value for part in ("model", "optimizer") for key, value in parts[part].items()}

    def initialise(self, weights: dict[str, Tensor]) -> None:
        """Set the weights of the network and of all EMA."""
        current: dict[str, Any] = self.network.state_dict()
        sharded = {key: _shard_like(value.to(current[key].device), current[key]) for key, value in weights.items()}
        self.network.load_state_dict(sharded)
        self.ema_weights.load(dict.fromkeys(self.ema_weights.modules, sharded))

    def load(self, checkpoint: Path) -> None:
        """Load a checkpoint, written by any number of processes.

        Raises:
            UserError: it is damaged, or of another network.
        """
        try:
            self.ema_weights.load({name: self._read(checkpoint, name) for name in self.ema_weights.modules})
            self._load_network_and_optimizer(checkpoint)
            self.meters.load_state_dict(checkpoints.load(checkpoint, "meters"))
        except (RuntimeError, KeyError) as error:
            raise checkpoints.mismatch_error(checkpoint, error) from None
        self.step = checkpoints.step_of(checkpoint)

    def _optimizer_state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                yield f"{name}.{key}", value

    def _load_network_and_optimizer(self, checkpoint: Path) -> None:
        """Load network and optimizer. The optimizer's state is empty if no step was taken."""
        if not (checkpoint / SHARDS).is_dir():
            self.network.load_state_dict(self._read(checkpoint, "model"))
            self._set_optimizer_state(checkpoints.load(checkpoint, "optimizer"))
            return
        from .fsdp import read

        weights = {f"model.{key}": value for key, value in self.network.state_dict().items()}
        moments = {f"optimizer.{key}": value for key, value in self._empty_optimizer_state()}
        found = read(checkpoint / SHARDS, weights, moments)
        self.network.load_state_dict({key.removeprefix("model."): found[key] for key in weights})
        self._set_optimizer_state({key.removeprefix("optimizer."): found[key] for key in moments if key in found})

    def _empty_optimizer_state(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.network.named_parameters():
            for key in OPTIMIZER_KEYS:
                yield f"{name}.{key}", torch.zeros(()) if key == "step" else torch.zeros_like(parameter)

    def _set_optimizer_state(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            if f"{name}.step" in state:
                values = {key: state[f"{name}.{key}"] for key in OPTIMIZER_KEYS}
                self.optimizer.state[parameter] = {
                    key: _optimizer_tensor(value, parameter, key) for key, value in values.items()
                }

    def _read(self, checkpoint: Path, part: str) -> dict[str, Tensor]:
        """Return a part that is one file, sharded as this state's weights are."""
        values = checkpoints.load(checkpoint, part)
        if not self.sharded:
            return values
        current: dict[str, Any] = self.network.state_dict()
        return {key: _shard_like(value, current[key]) for key, value in values.items()}


def _optimizer_tensor(value: Tensor, parameter: Tensor, key: str) -> Tensor:
    if value.shape != (() if key == "step" else parameter.shape) or not value.is_floating_point():
        raise RuntimeError(f"{key} of {tuple(parameter.shape)} weights is {value.dtype} of shape {tuple(value.shape)}")
    value = value.float().to(parameter.device)
    return value if key == "step" else _shard_like(value, parameter)


def _shard_like(value: Tensor, like: Any) -> Tensor:
    """Return a full tensor sharded as another is, if that is sharded."""
    if is_sharded(value) or not is_sharded(like):
        return value
    from .fsdp import shard_like

    return shard_like(value, like)
