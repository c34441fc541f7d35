"""Finds the columns of a Hugging Face data set that hold images and labels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def find_columns(library: Any, rows: Any, path: str, image: str, label: str) -> tuple[str, str]:
    """Return the names of the columns of images and of labels.

    Raises:
        ValueError: there is no such column, it holds something else, or `auto` is ambiguous.
    """
    features = rows.features
    for name, column in (("image", image), ("label", label)):
        if column not in ("auto", "none", *features):
            raise ValueError(f"{path} has no column '{column}' for {name}; it has: {', '.join(features)}")
    if image == "auto":
        found = [name for name, kind in features.items() if isinstance(kind, library.Image)]
        if len(found) != 1:
            raise ValueError(f"{path} has {len(found)} columns of images: set image to one of {', '.join(features)}")
        image = found[0]
    if label == "auto":
        found = [name for name, kind in features.items() if isinstance(kind, library.ClassLabel)]
        integers = [name for name, kind in features.items() if getattr(kind, "dtype", "").startswith(("int", "uint"))]
        if len(found) > 1 or (integers and not found):
            raise ValueError(
                f"{path} has several columns that may hold labels: set label to one of {', '.join(integers)}, none"
            )
        several = [
            name for name, kind in features.items() if isinstance(getattr(kind, "feature", None), library.ClassLabel)
        ]
        if several and not found:
            raise ValueError(
                f"column '{several[0]}' of {path} holds several labels in a row: set label = none to ignore them"
            )
        label = found[0] if found else "none"
    if not _holds_images(library, features[image]):
        raise ValueError(f"column '{image}' of {path} holds {_kind(features[image])}, not one image in each row")
    if label != "none" and not getattr(features[label], "dtype", "").startswith(("int", "uint")):
        raise ValueError(
            f"column '{label}' of {path} holds {_kind(features[label])}, not one label from 0 up in each row"
        )
    return image, label


def _holds_images(library: Any, feature: Any) -> bool:
    """Return whether a column holds images: of type Image, encoded bytes, paths, or a table of both."""
    if isinstance(feature, dict):
        return {"bytes", "path"} <= feature.keys()
    types = ("binary", "large_binary", "string", "large_string")
    return isinstance(feature, library.Image) or getattr(feature, "dtype", "") in types


def _kind(feature: Any) -> str:
    """Return the type of a column for messages."""
    return str(getattr(feature, "dtype", None) or feature)[:100]


def read_labels(rows: Any, column: str, where: str) -> Tensor:
    """Read the labels of all rows, (N,) int64.

    Raises:
        ValueError: they are not integers from 0 up.
    """
    labels = np.asarray(rows[column][:])
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= 2**63:
        raise ValueError(f"column '{column}' of {where} must hold labels from 0 up: name another, or set label = none")
    return torch.from_numpy(labels.astype(np.int64))
