"""The EMA weights of a checkpoint: one that is stored, or one of another width, reconstructed from several."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from ..storage import checkpoints
from ..support.errors import UserError
from .ema import Profile, misfit, reconstruct

LARGE_MISFIT = 0.1
"""The misfit above which a reconstruction prints a warning."""


def read_ema(checkpoint: Path, name: str = "ema") -> dict[str, Tensor]:
    """Return the weights of an EMA: `ema`, `ema-0.999`, `width-0.05`, or `width-` with any width.

    A width that is not stored is reconstructed from the widths stored in this and all earlier checkpoints (EDM2, arXiv
    2312.02696, sec. 3.2).

    Raises:
        UserError: there is no such EMA, or the checkpoint is damaged.
    """
    known = sorted(file.stem for file in checkpoint.glob("*.safetensors") if file.stem.startswith(("ema", "width-")))
    if name in known:
        return checkpoints.load(checkpoint, name)
    stored = _StoredEMA(checkpoint)
    try:
        width = float(name.removeprefix("width-")) if name.startswith("width-") else None
    except ValueError:
        width = None
    if width is None or not stored:
        others = ", and width- with any number below 0.2887" if stored else ""
        raise UserError(f"{checkpoint} has no EMA '{name}'; known: {', '.join(known)}{others}")
    wanted = (checkpoints.step_of(checkpoint), width)
    if misfit(stored.profiles, wanted) > LARGE_MISFIT:
        print(
            f"the EMA of width {width} is reconstructed poorly from {len(stored)} stored ones: keep more checkpoints",
            file=sys.stderr,
        )
    return reconstruct(stored, wanted)


class _StoredEMA(Mapping[Profile, Mapping[str, Tensor]]):
    """The power-function EMA in a run's checkpoints up to one. Each is read when it is asked for."""

    def __init__(self, checkpoint: Path):
        last = checkpoints.step_of(checkpoint)
        self.files = {
            (checkpoints.step_of(file.parent), float(file.stem.removeprefix("width-"))): file
            for one in checkpoints.list_checkpoints(checkpoint.parent)
            for file in sorted(one.glob("width-*.safetensors"))
            if checkpoints.step_of(one) <= last
        }
        self.profiles = [*self.files]

    def __getitem__(self, profile: Profile) -> Mapping[str, Tensor]:
        file = self.files[profile]
        return checkpoints.load(file.parent, file.stem)

    def __iter__(self) -> Iterator[Profile]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
