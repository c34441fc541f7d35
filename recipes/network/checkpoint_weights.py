"""Which weights to sample with: any average that a checkpoint holds, or one made of several."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from ..storage import checkpoints
from ..support.errors import UserError
from .ema import Profile, misfit, reconstruct

POOR = 0.1
"""The misfit from which a reconstructed average deserves a warning."""


def read_average(checkpoint: Path, name: str = "ema") -> dict[str, Tensor]:
    """Return the weights of an average: `ema`, `ema-0.999`, `width-0.05`, or `width-` with a width of one's choice.

    A width that was not kept is made of those that were, of this and all earlier checkpoints (EDM2, arXiv 2312.02696,
    sec. 3.2).

    Raises:
        UserError: there is no such average, or the checkpoint is damaged.
    """
    known = sorted(file.stem for file in checkpoint.glob("*.safetensors") if file.stem.startswith(("ema", "width-")))
    if name in known:
        return checkpoints.load(checkpoint, name)
    kept = _SavedAverages(checkpoint)
    try:
        width = float(name.removeprefix("width-")) if name.startswith("width-") else None
    except ValueError:
        width = None
    if width is None or not kept:
        others = ", and width- with any number below 0.2887" if kept else ""
        raise UserError(f"{checkpoint} has no average '{name}'; known: {', '.join(known)}{others}")
    wanted = (checkpoints.step_of(checkpoint), width)
    if misfit(kept.profiles, wanted) > POOR:
        print(
            f"width {width} is far from what {len(kept)} kept averages tell of: keep more checkpoints", file=sys.stderr
        )
    return reconstruct(kept, wanted)


class _SavedAverages(Mapping[Profile, Mapping[str, Tensor]]):
    """The averages by width in a run's checkpoints up to one, each read when it is asked for."""

    def __init__(self, checkpoint: Path):
        until = checkpoints.step_of(checkpoint)
        self.files = {
            (checkpoints.step_of(file.parent), float(file.stem.removeprefix("width-"))): file
            for one in checkpoints.list_checkpoints(checkpoint.parent)
            for file in sorted(one.glob("width-*.safetensors"))
            if checkpoints.step_of(one) <= until
        }
        self.profiles = [*self.files]

    def __getitem__(self, profile: Profile) -> Mapping[str, Tensor]:
        file = self.files[profile]
        return checkpoints.load(file.parent, file.stem)

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
