"""Images in the formats of Hugging Face datasets: parquet, `save_to_disk` and imagefolder, from local files only."""

import os
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from stat import S_ISDIR
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..storage.files import open_regular, read_regular
from ..support.digests import digest_of
from ..support.errors import UserError
from .classes import Classes, describe_images
from .file_listing import check_utf8, list_files
from .fingerprint import FileFingerprints
from .huggingface_columns import find_columns, read_labels
from .image_decoding import UnreadableImageError, decode_square
from .images import Split
from .lazy_images import LazyImages, check_size
from .splits import split_images
from .unreadable_images import ADVICE, find_readable

SAVED = ("dataset_dict.json", "state.json")
"""Files that identify a folder written by `save_to_disk`."""


def huggingface(
    path: str,
    size: int,
    image: str = "auto",
    label: str = "auto",
    training: str = "train",
    heldout: str = "none",
    split: float | Literal["none"] = "none",
    unreadable: Literal["stop", "skip"] = "stop",
) -> Split:
    """Return the images of a local data set, as RGB squares cropped as in ADM (`image_decoding.py`).

    Nothing is downloaded. Rows are read by index, in their stored order. `datasets` converts parquet files to a format
    that allows this, and stores the copy in its cache (HF_DATASETS_CACHE).

    Args:
        path: a parquet file, a folder of them, a folder written by `save_to_disk`, or a folder of image files.
        size: the side of an image, in pixels.
        image: the column of images; `auto` is the only one of that type.
        label: the column of labels, or `none`; `auto` is the only one of type ClassLabel, and none if no column holds
            integers. The labels that occur in the training part are the classes.
        training: the name of the split to train on, if there are several.
        heldout: the name of the split to hold out.
        split: instead of `heldout`, the fraction of every class to train on, the rest being held out.
        unreadable: `stop` at an image that is damaged or missing, or `skip` all such rows. With `skip`, every image is
            opened once before the first step. A note names the skipped rows, and `unreadable-SPLIT.json` in the folder,
            or beside the file, records them. A stopped run can be resumed with `skip`, as described for `folder`.

    Raises:
        ValueError: there is no such data set, split or column, or the size or the fraction is invalid.
        ImportError: datasets is not installed.
        UserError: an image is damaged; raised on access.
    """
    check_size(size)
    library = _library()
    parts = _open(library, Path(path))
    wanted = [training] if heldout == "none" else [training, heldout]
    for name in wanted:
        if name not in parts:
            raise ValueError(f"{path} has no split '{name}'; it has: {', '.join(map(str, parts))}")
    chosen = find_columns(library, parts[training], path, image, label)
    found, skipped = [], []
    for name in wanted:
        images, message = _images(library, parts[name], Path(path), name, chosen, size, unreadable == "skip")
        found.append(images)
        skipped.append(message)
    where = [f"{name} of {path}" for name in wanted]
    names: tuple[str, ...] = ()
    dropped = ""
    if chosen[1] != "none":
        given = getattr(parts[training].features[chosen[1]], "names", None) or ()
        classes = Classes.from_labels(found[0].labels, given)
        found = [replace(one, labels=classes.compact(one.labels, of)) for one, of in zip(found, where, strict=True)]
        names, dropped = classes.names, classes.describe_empty(given)
    notes = [describe_images(of, one.labels, names, more) for of, one, more in zip(where, found, skipped, strict=True)]
    notes += [f"{path}: {dropped}"] * bool(dropped)
    return Split(*split_images(found[0], found[1] if len(found) > 1 else None, split), names, notes=tuple(notes))


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(f"huggingface needs datasets ({error}): pip install 'sitkit[hf]'") from error


def _open(library: Any, path: Path) -> dict[str, Any]:
    """Open a data set; return its splits by name."""
    found = list_files(path, (".parquet",)) if _is_folder(path) else None
    try:
        if found is None:
            open_regular(path).close()
            parts = library.load_dataset("parquet", data_files=str(path))
        elif any((path / name).is_file() for name in SAVED):
            parts = library.load_from_disk(str(path))
        elif found.names:
            parts = library.load_dataset("parquet", data_dir=str(path))
        else:
            parts = library.load_dataset("imagefolder", data_dir=str(path))
    except Exception as error:  # a damaged file raises errors of pyarrow and many others
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{path} cannot be read as parquet, as a folder written by save_to_disk, or as a folder of images: {reason}"
        ) from error
    return dict(parts) if isinstance(parts, library.DatasetDict) else {"train": parts}


def _is_folder(path: Path) -> bool:
    """Return whether a path is a folder, after checking that all files in it are regular, since others could block.

    Raises:
        ValueError: the path does not exist or cannot be read, or a file in it is not regular.
    """
    check_utf8(str(path))
    try:
        if not S_ISDIR(path.stat().st_mode):
            return False
        for folder, _, names in os.walk(path):
            for name in names:
                if (file := Path(folder, name)).exists() and not file.is_file():
                    raise ValueError(f"{file} is not a regular file: remove it")
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"there is no file or folder {path}") from None
    except OSError as error:
        raise ValueError(f"{error.filename or path} cannot be read: {error.strerror}") from error
    return True


def _images(
    library: Any, rows: Any, path: Path, part: str, columns: tuple[str, str], size: int, skip: bool
) -> tuple[LazyImages, str]:
    """Return the images of a split, and a message about skipped ones."""
    (image, label), where = columns, f"{part} of {path}"
    if not len(rows):
        raise ValueError(f"{where} holds no images")
    labels = torch.zeros(len(rows), dtype=torch.int64) if label == "none" else read_labels(rows, label, where)
    encoded = rows.select_columns([image]).cast_column(image, library.Image(decode=False))

    def load(index: int) -> Tensor:
        row = encoded[index][image]
        name = f"row {index} of {where}" + (f" ({row['path']})" if row and row["path"] else "")
        if row is None or not (row["bytes"] or row["path"]):
            raise UnreadableImageError(f"{name} has no image")
        try:
            content = row["bytes"] or read_regular(Path(row["path"]))
        except (OSError, ValueError) as error:  # ValueError: a null byte in a path
            raise UserError(f"{name} cannot be opened: {getattr(error, 'strerror', error)}") from error
        return decode_square(content, size, name)

    if not skip:
        return LazyImages(load, labels, size, HuggingFaceFingerprints(encoded, image), ADVICE), ""
    names = [f"{part}/{index}" for index in range(len(rows))]
    file = Path(f"{path}/unreadable-{part}.json" if path.is_dir() else f"{path}.unreadable-{part}.json")
    key = f"{image} {HuggingFaceFingerprints(encoded, image).cache_key(torch.arange(len(rows)))}"
    indices, message = find_readable(load, names, key, file, where)
    if not indices:
        raise ValueError(f"{where} holds no readable images")
    rows = HuggingFaceFingerprints(encoded.select(indices), image)
    return LazyImages(lambda index: load(indices[index]), labels[indices], size, rows, ADVICE), message


@dataclass(frozen=True)
class HuggingFaceFingerprints:
    """Computes fingerprints and cache keys of a column of encoded images: bytes in Arrow files, or paths of files."""

    rows: Any
    column: str

    def fingerprint(self, indices: Tensor, sample: int, /) -> str:
        """Return the sha256 of the sizes of images (M,), and of the content of some."""
        sizes, paths = self._table()
        files = [Path(paths[index]) for index in indices.tolist() if sizes[index] < 0 and paths[index]]
        of_files = FileFingerprints(files, [file.name for file in files]).fingerprint(torch.arange(len(files)), sample)
        some = indices[:: max(1, -(-len(indices) // sample))]
        return digest_of(torch.from_numpy(sizes)[indices], of_files, *self._digests(some))

    def cache_key(self, indices: Tensor, /) -> str:
        """Return the sha256 of the indices (M,), and of the cache keys of all files that hold the images."""
        sizes, paths = self._table()
        files = [Path(one["filename"]) for one in self.rows.cache_files]
        files += [Path(path) for path, size in zip(paths, sizes, strict=True) if size < 0 and path]
        of_files = FileFingerprints(files, [str(file) for file in files]).cache_key(torch.arange(len(files)))
        held = [] if self.rows.cache_files else self._digests(indices)  # for rows in memory
        return digest_of(indices, torch.from_numpy(sizes), of_files, *held)

    def _digests(self, indices: Tensor) -> list[str]:
        """Return the sha256 of those images (M,) whose bytes are in the table."""
        rows = (self.rows[index][self.column] for index in indices.tolist())
        return [sha256(row["bytes"]).hexdigest() for row in rows if row and row["bytes"]]

    def _table(self) -> tuple[np.ndarray, list[str | None]]:
        """Return the size of each image in bytes, -1 if it is not in the table, and the path of each."""
        compute = import_module("pyarrow.compute")
        column = self.rows.with_format("arrow")[:][self.column]
        sizes = compute.fill_null(compute.binary_length(compute.struct_field(column, "bytes")), -1)
        return sizes.to_numpy().astype(np.int64), compute.struct_field(column, "path").to_pylist()
