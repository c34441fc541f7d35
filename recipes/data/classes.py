"""Classes: which labels have images, what they are called, and the numbers by which other programs know them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..support.errors import UserError
from .images import Split

MOST_NAMED = 12
"""Classes that are named in a line, at most."""


@dataclass(frozen=True, eq=False)
class Classes:
    """The labels that occur among images to train on, in their order: the network's label k is the k-th of them.

    A label without images would be a class that a network never sees, and that samples are drawn of all the same.

    Args:
        numbers: (K,) int64, the labels as the data have them, rising.
        names: of each; where the data have no names, its number.
    """

    numbers: Tensor
    names: tuple[str, ...]

    @classmethod
    def from_labels(cls, labels: Tensor, names: Sequence[str] = ()) -> "Classes":
        """Return the classes of images with labels (N,) int64, called by `names` by label, if there are any."""
        numbers = torch.unique(labels)
        return cls(numbers, tuple(names[number] if names else str(number) for number in numbers.tolist()))

    def compact(self, labels: Tensor, what: str) -> Tensor:
        """Return labels (N,) of the data as those of the network, from 0 to K - 1.

        Raises:
            ValueError: one is of no class; `what` says whose labels they are.
        """
        places = torch.searchsorted(self.numbers, labels).clamp(max=max(len(self.numbers) - 1, 0))
        strange = self.numbers[places] != labels if len(self.numbers) else torch.ones_like(labels, dtype=torch.bool)
        if strange.any():
            raise ValueError(f"{what} has the label {int(labels[strange][0])}, of which there is no image to train on")
        return places

    def describe_empty(self, names: Sequence[str] = ()) -> str:
        """Return a line on labels without images, among `names` or between others; nothing if there are none."""
        numbers = self.numbers.tolist()
        if not names:
            gaps = bool(numbers) and numbers[-1] + 1 > len(numbers)
            return f"the {len(numbers):,} labels that occur, up to {numbers[-1]}, are the classes" if gaps else ""
        occur = set(numbers)
        missing = [name for number, name in enumerate(names) if number not in occur]
        few = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        return f"{len(missing):,} classes have no image and are left out: {few}" if missing else ""

    def notes(self, path: str) -> tuple[str, ...]:
        """Return a line about data at a path whose classes are named by their numbers, if labels are missing."""
        left_out = self.describe_empty()
        return (f"{path}: {left_out}, named by their numbers",) if left_out else ()


def check_labels(split: Split, what: str) -> Split:
    """Return data of the user's own, of which classes without images are told.

    Raises:
        UserError: there are labels of no class.
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
        told = f"{what}: {len(missing):,} classes have no image to train on, and samples are drawn of them: {few}"
        return replace(split, notes=(*split.notes, told))
    return split


def describe_images(where: str, labels: Tensor, names: Sequence[str], *more: str) -> str:
    """Return a line on images with labels (N,): how many there are, of which classes; and what else is to be told."""
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    if not names:
        of = ""
    elif len(names) <= MOST_NAMED:
        of = f" of {len(names)} classes ({', '.join(f'{name} {n:,}' for name, n in zip(names, counts, strict=True))})"
    else:
        of = f" of {len(names):,} classes, {min(counts):,} to {max(counts):,} each"
    return "; ".join([f"{where}: {len(labels):,} images{of}", *(one for one in more if one)])


def class_numbers(names: Sequence[str]) -> Mapping[int, int]:
    """Return the label of each class by the number that other programs know it by.

    It is the class's name where all names are numbers, as for data without names, and the label itself elsewhere.
    """
    known = [int(name) if name.isascii() and name.isdigit() and len(name) < 19 else -1 for name in names]
    own = len(set(known)) == len(names) and all(str(number) == name for number, name in zip(known, names, strict=True))
    return {number: label for label, number in enumerate(known if own else range(len(names)))}
