"""Images in the Hugging Face formats: parquet, `save_to_disk` and imagefolder, from the disk alone."""

from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..problem import Problem
from .crop import square
from .digests import of_parts
from .fingerprint import Files
from .images import Split
from .ondemand import OnDemand, check_size
from .parts import divide

SAVED = ("dataset_dict.json", "state.json")
"""The files by which a folder of `save_to_disk` is known."""


def huggingface(
    path: str,
    size: int,
    image: str = "auto",
    label: str = "auto",
    training: str = "train",
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the images of a data set on the disk, as RGB squares cut like ADM's (`crop.py`).

    Nothing is downloaded. Rows are read by number, in their stored order. `datasets` keeps a copy of parquet files in
    its cache (HF_DATASETS_CACHE), in the format that can be read so.

    Args:
        path: a parquet file, a folder of them, a folder as `save_to_disk` writes it, or a folder of image files.
        size: the side of an image, in pixels.
        image: the column of images; `auto` is the only one of that type.
        label: the column of labels, or `none`; `auto` is the only one of type ClassLabel, and none if no column holds
            whole numbers.
        training: the part to train on, where there are parts.
        heldout: the part to compare with.
        split: or else the share of every class to train on, the rest being held out.

    Raises:
        ValueError: there is no such data set, part or column, or the size or the share cannot be.
        ImportError: datasets is not installed.
        Problem: an image is damaged, when it is asked for.
    """
    check_size(size)
    library = _library()
    parts = _open(library, Path(path))
    wanted = [training] if heldout == "none" else [training, heldout]
    for name in wanted:
        if name not in parts:
            raise ValueError(f"{path} has no part '{name}'; it has: {', '.join(map(str, parts))}")
    chosen, classes = _columns(library, parts[training], path, image, label)
    one, *others = [_images(library, parts[name], f"{name} of {path}", chosen, size) for name in wanted]
    return Split(*divide(one, others[0] if others else None, split), classes)


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(f"it needs datasets ({error}): pip install 'sitkit[hf]'") from error


def _open(library: Any, path: Path) -> dict[str, Any]:
    """Return the parts of a data set by name."""
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    try:
        if any((path / name).is_file() for name in SAVED):
            found = library.load_from_disk(str(path))
        elif path.is_file():
            found = library.load_dataset("parquet", data_files=str(path))
        elif any(path.rglob("*.parquet")):
            found = library.load_dataset("parquet", data_dir=str(path))
        else:
            found = library.load_dataset("imagefolder", data_dir=str(path))
    except Exception as error:  # what is wrong with a file reaches us as pyarrow's errors, and as many others
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{path} cannot be read as parquet, save_to_disk or a folder of images, which it should be: {reason}"
        ) from error
    return dict(found) if isinstance(found, library.DatasetDict) else {"train": found}


def _columns(library: Any, rows: Any, path: str, image: str, label: str) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Return the columns of images and of labels, and the names of the classes."""
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
        label = found[0] if found else "none"
    if label == "none":
        return (image, label), ()
    names = getattr(features[label], "names", None) or map(str, range(int(_labels(rows, label, path).max()) + 1))
    return (image, label), tuple(names)


def _labels(rows: Any, column: str, where: str) -> np.ndarray:
    labels = np.asarray(rows[column][:])
    if not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        raise ValueError(f"column '{column}' of {where} should hold labels from 0 up; give another, or label = none")
    return labels.astype(np.int64)


def _images(library: Any, rows: Any, where: str, columns: tuple[str, str], size: int) -> OnDemand:
    image, label = columns
    if not len(rows):
        raise ValueError(f"{where} holds no image")
    labels = np.zeros(len(rows), dtype=np.int64) if label == "none" else _labels(rows, label, where)
    encoded = rows.select_columns([image]).cast_column(image, library.Image(decode=False))

    def load(number: int) -> Tensor:
        row = encoded[number][image]
        name = f"row {number} of {where}" + (f" ({row['path']})" if row and row["path"] else "")
        if row is None:
            raise Problem(f"{name} has no image")
        try:
            return square(row["bytes"] or Path(row["path"]).read_bytes(), size, name)
        except OSError as error:
            raise Problem(f"{name} cannot be opened: {error.strerror}") from error

    return OnDemand(load, torch.from_numpy(labels), size, Rows(encoded, image))


@dataclass(frozen=True)
class Rows:
    """A column of encoded images, as an origin of images: bytes in Arrow's files, or the paths of image files."""

    rows: Any
    column: str

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of the sizes of images (M,), and of the content of some."""
        sizes, paths = self._table()
        files = [Path(paths[number]) for number in numbers.tolist() if sizes[number] < 0 and paths[number]]
        of_files = Files(files, [file.name for file in files]).fingerprint(torch.arange(len(files)), sample)
        some = numbers[:: max(1, -(-len(numbers) // sample))]
        return of_parts(torch.from_numpy(sizes)[numbers], of_files, *self._digests(some))

    def state(self, numbers: Tensor, /) -> str:
        """Return the sha256 of which images (M,) these are, and of the state of all files that hold them."""
        sizes, paths = self._table()
        files = [Path(one["filename"]) for one in self.rows.cache_files]
        files += [Path(path) for path, size in zip(paths, sizes, strict=True) if size < 0 and path]
        of_files = Files(files, [str(file) for file in files]).state(torch.arange(len(files)))
        held = [] if self.rows.cache_files else self._digests(numbers)  # rows in memory
        return of_parts(numbers, torch.from_numpy(sizes), of_files, *held)

    def _digests(self, numbers: Tensor) -> list[str]:
        """Return the sha256 of those images (M,) that the table holds."""
        rows = (self.rows[number][self.column] for number in numbers.tolist())
        return [sha256(row["bytes"]).hexdigest() for row in rows if row and row["bytes"]]

    def _table(self) -> tuple[np.ndarray, list[str | None]]:
        """Return the bytes of each image, -1 if they are not in the table, and the path of each."""
        compute = import_module("pyarrow.compute")
        column = self.rows.with_format("arrow")[:][self.column]
        sizes = compute.fill_null(compute.binary_length(compute.struct_field(column, "bytes")), -1)
        return sizes.to_numpy().astype(np.int64), compute.struct_field(column, "path").to_pylist()
