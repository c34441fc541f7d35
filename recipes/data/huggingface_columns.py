"""Which columns of a Hugging Face data set hold images and labels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def find_columns(library: Any, rows: Any, path: str, image: str, label: str) -> tuple[str, str]:
    """Return the columns of images and of labels.

    Raises:
        ValueError: there is no such column, it holds something else, or it is not told which one is meant.
    """
    features = rows.features
    for name, column in (("image", image), ("label", label)):
        if column not in ("auto", "none", *features):
            raise ValueError(f"{path} has no column '{column}' for {name}; it has: {', '.join(features)}")
    if image == "auto":
        found = [name for name, kind in features.items() if isinstance(kind, library.Image)]
        if len(found) != 1:
            raise ValueError(
                f"{path} has {len(found)} columns of images, name one: image = one of {', '.join(features)}"
            )
        image = found[0]
    if label == "auto":
        found = [name for name, kind in features.items() if isinstance(kind, library.ClassLabel)]
        whole = [name for name, kind in features.items() if getattr(kind, "dtype", "").startswith(("int", "uint"))]
        if len(found) > 1 or (whole and not found):
            raise ValueError(
                f"{path} has several columns for labels, or unsure ones: label = {', '.join(whole)} or none"
            )
        several = [
            name for name, kind in features.items() if isinstance(getattr(kind, "feature", None), library.ClassLabel)
        ]
        if several and not found:
            raise ValueError(f"column '{several[0]}' of {path} holds several labels a row: label = none does without")
        label = found[0] if found else "none"
    if not _holds_images(library, features[image]):
        raise ValueError(f"column '{image}' of {path} holds {_kind(features[image])}, not one image a row")
    if label != "none" and not getattr(features[label], "dtype", "").startswith(("int", "uint")):
        raise ValueError(f"column '{label}' of {path} holds {_kind(features[label])}, not one label from 0 up a row")
    return image, label


def _holds_images(library: Any, feature: Any) -> bool:
    """Return whether a column has an image a row: as such, encoded, as a path, or as a table of both."""
    if isinstance(feature, dict):
        return {"bytes", "path"} <= feature.keys()
    words = ("binary", "large_binary", "string", "large_string")
    return isinstance(feature, library.Image) or getattr(feature, "dtype", "") in words


def _kind(feature: Any) -> str:
    """Return the type of a column, in a word or two."""
    return str(getattr(feature, "dtype", None) or feature)[:100]


def read_labels(rows: Any, column: str, where: str) -> Tensor:
    """Return the labels of all rows, (N,) int64.

    Raises:
        ValueError: they are not whole numbers from 0 up.
    """
    labels = np.asarray(rows[column][:])
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= 2**63:
        raise ValueError(f"column '{column}' of {where} should hold labels from 0 up; give another, or label = none")
    return torch.from_numpy(labels.astype(np.int64))
