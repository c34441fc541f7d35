"""Classes: the labels that occur, their names, and the class numbers of other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..support.errors import UserError
from .images import Split

MOST_NAMED = 12
"""How many classes a message lists at most."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The labels that occur among the training images: label k of the network is the k-th of them.

    Labels without images are dropped: the network would never see them, and yet be sampled with them.

    Args:
        labels: (K,) int64, the labels of the data, ascending.
        names: the name of each class; its label where the data have no names.
    """

    labels: Tensor
    names: tuple[str, ...]

    @classmethod
    def from_labels(cls, labels: Tensor, names: Sequence[str] = ()) -> "Classes":
        """Return the classes of images with labels (N,) int64; `names` are indexed by label, and may be empty."""
        occurring = torch.unique(labels)
        return cls(occurring, tuple(names[label] if names else str(label) for label in occurring.tolist()))

    def compact(self, labels: Tensor, what: str) -> Tensor:
        """Map labels (N,) of the data to those of the network, from 0 to K - 1.

        Raises:
            ValueError: a label is not among the classes; `what` names the data in the message.
        """
        places = torch.searchsorted(self.labels, labels).clamp(max=max(len(self.labels) - 1, 0))
        unknown = self.labels[places] != labels if len(self.labels) else torch.ones_like(labels, dtype=torch.bool)
        if unknown.any():
            raise ValueError(f"{what} has the label {int(labels[unknown][0])}, for which there is no training image")
        return places

    def describe_empty(self, names: Sequence[str] = ()) -> str:
        """Return a message about labels without images; empty if there are none."""
        labels = self.labels.tolist()
        if not names:
            gaps = bool(labels) and labels[-1] + 1 > len(labels)
            return f"the {len(labels):,} labels that occur, up to {labels[-1]}, are the classes" if gaps else ""
        occur = set(labels)
        missing = [name for label, name in enumerate(names) if label not in occur]
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        return f"{len(missing):,} classes have no images and are dropped: {few}" if missing else ""

    def notes(self, path: str) -> tuple[str, ...]:
        """Return a note about labels without images, for data at a path whose classes are named by their labels."""
        message = self.describe_empty()
        return (f"{path}: {message}, named by their labels",) if message else ()


def check_labels(split: Split, what: str) -> Split:
    """Check the labels of custom data, and add a note about classes without training images.

    Raises:
        UserError: labels have another shape or dtype, or are not among the classes.
    """
    if not split.classes:
        return split
    count = len(split.classes)
    for part, images in (("training", split.training), ("heldout", split.heldout)):
        labels = images.labels
        if labels.shape != (len(images),) or labels.is_floating_point():
            raise UserError(f"{what}: labels of {part} are {labels.dtype} {tuple(labels.shape)}, not int64 (N,)")
        if len(labels) and (labels.min() < 0 or labels.max() >= count):
            raise UserError(
                f"{what}: labels of {part} are {int(labels.min())} to {int(labels.max())}, and there are "
                f"{len(split.classes)} classes"
            )
    occur = torch.bincount(split.training.labels, minlength=count) > 0
    if missing := [name for name, here in zip(split.classes, occur.tolist(), strict=False) if not here]:
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        line = f"{what}: {len(missing):,} classes have no training images, but samples of them will be generated: {few}"
        return replace(split, notes=(*split.notes, line))
    return split


def describe_images(where: str, labels: Tensor, names: Sequence[str], *more: str) -> str:
    """Return a message about images with labels (N,): their number and classes, and then the messages in `more`."""
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    if not names:
        of = ""
    elif len(names) <= MOST_NAMED:
        of = f" of {len(names)} classes ({', '.join(f'{name} {n:,}' for name, n in zip(names, counts, strict=True))})"
    else:
        of = f" of {len(names):,} classes, {min(counts):,} to {max(counts):,} each"
    return "; ".join([f"{where}: {len(labels):,} images{of}", *(one for one in more if one)])


def class_numbers(names: Sequence[str]) -> Mapping[int, int]:
    """Return the label of each class by the class number that other programs use.

    That number is the name of the class if all names are numbers, as for data without names, and the label otherwise.
    """
    values = [int(name) if name.isascii() and name.isdigit() and len(name) < 19 else -1 for name in names]
    numeric = len(set(values)) == len(names) and [*map(str, values)] == [*names]
    return {number: label for label, number in enumerate(values if numeric else range(len(names)))}
