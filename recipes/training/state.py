"""What training changes, and how it is kept and found again."""

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

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
PIECES = "trained"
"""The folder of a checkpoint to which each process writes its piece of network and moments, if weights are sharded."""


class TrainingState:
    """The network, its averages, the optimiser, what is counted between records, and the number of steps done.

    Args:
        recipe: the experiment.
        split: the data, for their shape and classes.
        group: over whose processes the weights may be sharded.
    """

    def __init__(self, recipe: Recipe, split: Split, group: ProcessGroup):
        self.network = build_network(recipe, split).to(group.device)
        self.averages = EMAWeights.of(recipe.ema, lambda: copy.deepcopy(self.network))
        self.sharded = group.world_size > 1 and recipe.compute.parallel != "ddp"
        if self.sharded:
            from .fsdp import shard

            shard([self.network], group, recipe.compute.parallel, recipe.train.precision)
            shard([*self.averages.modules.values()], group, recipe.compute.parallel)
        options = recipe.optimizer
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.lr, betas=options.betas, weight_decay=options.weight_decay, fused=True
        )
        self.meters = Meters(recipe.log.bins)
        self.step = 0

    @property
    def average(self) -> nn.Module:
        """The average by which samples are made."""
        return self.averages.modules["ema"]

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """Return all that a checkpoint holds, by part; the tensors are not copied."""
        return {
            **self.averages.state_dicts(),
            "model": self.network.state_dict(),
            "optimizer": dict(self._moments()),
            "meters": self.meters.state_dict(),
        }

    def pieces(self) -> dict[str, Tensor]:
        """Return network and moments by one name each, of which each process holds a piece."""
        return {f"{part}.{key}": value for part in ("model", "optimizer") for key, value in self.parts()[part].items()}

    def initialise(self, weights: dict[str, Tensor]) -> None:
        """Start from weights: of the network, and of all its averages."""
        own: dict[str, Any] = self.network.state_dict()
        spread = {key: _spread(value.to(own[key].device), own[key]) for key, value in weights.items()}
        self.network.load_state_dict(spread)
        self.averages.load(dict.fromkeys(self.averages.modules, spread))

    def load(self, checkpoint: Path) -> None:
        """Go back to a checkpoint, written by however many processes.

        Raises:
            UserError: it is damaged, or of another network.
        """
        try:
            self.averages.load({name: self._read(checkpoint, name) for name in self.averages.modules})
            self._load_trained(checkpoint)
            self.meters.load_state_dict(checkpoints.load(checkpoint, "meters"))
        except (RuntimeError, KeyError) as error:
            raise checkpoints.mismatch_error(checkpoint, error) from None
        self.step = checkpoints.step_of(checkpoint)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimizer.state[parameter].items():
                yield f"{name}.{key}", value

    def _load_trained(self, checkpoint: Path) -> None:
        """Load network and moments, of which there are none if no step was taken."""
        if not (checkpoint / PIECES).is_dir():
            self.network.load_state_dict(self._read(checkpoint, "model"))
            self._set_moments(checkpoints.load(checkpoint, "optimizer"))
            return
        from .fsdp import read

        weights = {f"model.{key}": value for key, value in self.network.state_dict().items()}
        moments = {f"optimizer.{key}": value for key, value in self._blank_moments()}
        pieces = read(checkpoint / PIECES, weights, moments)
        self.network.load_state_dict({key.removeprefix("model."): pieces[key] for key in weights})
        self._set_moments({key.removeprefix("optimizer."): pieces[key] for key in moments if key in pieces})

    def _blank_moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.network.named_parameters():
            for key in MOMENTS:
                yield f"{name}.{key}", torch.zeros(()) if key == "step" else torch.zeros_like(parameter)

    def _set_moments(self, moments: dict[str, Tensor]) -> None:
        for name, parameter in self.network.named_parameters():
            if f"{name}.step" in moments:
                values = {key: moments[f"{name}.{key}"] for key in MOMENTS}
                self.optimizer.state[parameter] = {key: _like(value, parameter, key) for key, value in values.items()}

    def _read(self, checkpoint: Path, part: str) -> dict[str, Tensor]:
        """Return a part that is one file, spread as this state's weights are."""
        values = checkpoints.load(checkpoint, part)
        if not self.sharded:
            return values
        own: dict[str, Any] = self.network.state_dict()
        return {key: _spread(value, own[key]) for key, value in values.items()}


def _like(value: Tensor, parameter: Tensor, key: str) -> Tensor:
    if value.shape != (() if key == "step" else parameter.shape) or not value.is_floating_point():
        raise RuntimeError(f"{key} of {tuple(parameter.shape)} weights is {value.dtype} of shape {tuple(value.shape)}")
    value = value.float()
    return value.to(parameter.device) if key == "step" else _spread(value.to(parameter.device), parameter)


def _spread(value: Tensor, like: Any) -> Tensor:
    """Return a whole tensor sharded as another is, if that is sharded."""
    if is_sharded(value) or not is_sharded(like):
        return value
    from .fsdp import spread

    return spread(value, like)
