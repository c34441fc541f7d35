"""Images in the Hugging Face formats: parquet, `save_to_disk` and imagefolder, from the disk alone."""

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
"""The files by which a folder of `save_to_disk` is known."""


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
    """Return the images of a data set on the disk, as RGB squares cut like ADM's (`crop.py`).

    Nothing is downloaded. Rows are read by number, in their stored order. `datasets` keeps a copy of parquet files in
    its cache (HF_DATASETS_CACHE), in the format that can be read so.

    Args:
        path: a parquet file, a folder of them, a folder as `save_to_disk` writes it, or a folder of image files.
        size: the side of an image, in pixels.
        image: the column of images; `auto` is the only one of that type.
        label: the column of labels, or `none`; `auto` is the only one of type ClassLabel, and none if no column holds
            whole numbers. The labels that occur in the part to train on are the classes.
        training: the part to train on, where there are parts.
        heldout: the part to compare with.
        split: or else the share of every class to train on, the rest being held out.
        unreadable: `stop` at an image that is damaged or missing, or `skip` all such rows. To skip them, every image
            is opened once before the first step; what is left out is told of, and kept in `unreadable-PART.json` in the
            folder, or beside the file, for the next time. A run that has stopped may go on with `skip`, as of `folder`.

    Raises:
        ValueError: there is no such data set, part or column, or the size or the share cannot be.
        ImportError: datasets is not installed.
        UserError: an image is damaged, when it is asked for.
    """
    check_size(size)
    library = _library()
    parts = _open(library, Path(path))
    wanted = [training] if heldout == "none" else [training, heldout]
    for name in wanted:
        if name not in parts:
            raise ValueError(f"{path} has no part '{name}'; it has: {', '.join(map(str, parts))}")
    chosen = find_columns(library, parts[training], path, image, label)
    found, skipped = [], []
    for name in wanted:
        images, line = _images(library, parts[name], Path(path), name, chosen, size, unreadable == "skip")
        found.append(images)
        skipped.append(line)
    where = [f"{name} of {path}" for name in wanted]
    names: tuple[str, ...] = ()
    left_out = ""
    if chosen[1] != "none":
        given = getattr(parts[training].features[chosen[1]], "names", None) or ()
        classes = Classes.from_labels(found[0].labels, given)
        found = [replace(one, labels=classes.compact(one.labels, of)) for one, of in zip(found, where, strict=True)]
        names, left_out = classes.names, classes.describe_empty(given)
    told = [describe_images(of, one.labels, names, more) for of, one, more in zip(where, found, skipped, strict=True)]
    told += [f"{path}: {left_out}"] * bool(left_out)
    return Split(*split_images(found[0], found[1] if len(found) > 1 else None, split), names, notes=tuple(told))


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise ImportError(f"it needs datasets ({error}): pip install 'sitkit[hf]'") from error


def _open(library: Any, path: Path) -> dict[str, Any]:
    """Return the parts of a data set by name."""
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
    except Exception as error:  # what is wrong with a file reaches us as pyarrow's errors, and as many others
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{path} cannot be read as parquet, save_to_disk or a folder of images, which it should be: {reason}"
        ) from error
    return dict(parts) if isinstance(parts, library.DatasetDict) else {"train": parts}


def _is_folder(path: Path) -> bool:
    """Return whether a folder stands at a path, in which all files are regular ones: others would be waited for.

    Raises:
        ValueError: nothing stands there, or it cannot be looked at.
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
    """Return the images of a part, and a line on those that were left out."""
    (image, label), where = columns, f"{part} of {path}"
    if not len(rows):
        raise ValueError(f"{where} holds no image")
    labels = torch.zeros(len(rows), dtype=torch.int64) if label == "none" else read_labels(rows, label, where)
    encoded = rows.select_columns([image]).cast_column(image, library.Image(decode=False))

    def load(number: int) -> Tensor:
        row = encoded[number][image]
        name = f"row {number} of {where}" + (f" ({row['path']})" if row and row["path"] else "")
        if row is None or not (row["bytes"] or row["path"]):
            raise UnreadableImageError(f"{name} has no image")
        try:
            content = row["bytes"] or read_regular(Path(row["path"]))
        except (OSError, ValueError) as error:  # a path may hold a null byte
            raise UserError(f"{name} cannot be opened: {getattr(error, 'strerror', error)}") from error
        return decode_square(content, size, name)

    if not skip:
        return LazyImages(load, labels, size, HuggingFaceFingerprints(encoded, image), ADVICE), ""
    names = [f"{part}/{number}" for number in range(len(rows))]
    file = Path(f"{path}/unreadable-{part}.json" if path.is_dir() else f"{path}.unreadable-{part}.json")
    state = f"{image} {HuggingFaceFingerprints(encoded, image).cache_key(torch.arange(len(rows)))}"
    kept, told = find_readable(load, names, state, file, where)
    if not kept:
        raise ValueError(f"{where} holds no image that can be read")
    rows = HuggingFaceFingerprints(encoded.select(kept), image)
    return LazyImages(lambda number: load(kept[number]), labels[kept], size, rows, ADVICE), told


@dataclass(frozen=True)
class HuggingFaceFingerprints:
    """A column of encoded images, as an origin of images: bytes in Arrow's files, or the paths of image files."""

    rows: Any
    column: str

    def fingerprint(self, numbers: Tensor, sample: int, /) -> str:
        """Return the sha256 of the sizes of images (M,), and of the content of some."""
        sizes, paths = self._table()
        files = [Path(paths[number]) for number in numbers.tolist() if sizes[number] < 0 and paths[number]]
        of_files = FileFingerprints(files, [file.name for file in files]).fingerprint(torch.arange(len(files)), sample)
        some = numbers[:: max(1, -(-len(numbers) // sample))]
        return digest_of(torch.from_numpy(sizes)[numbers], of_files, *self._digests(some))

    def cache_key(self, numbers: Tensor, /) -> str:
        """Return the sha256 of which images (M,) these are, and of the state of all files that hold them."""
        sizes, paths = self._table()
        files = [Path(one["filename"]) for one in self.rows.cache_files]
        files += [Path(path) for path, size in zip(paths, sizes, strict=True) if size < 0 and path]
        of_files = FileFingerprints(files, [str(file) for file in files]).cache_key(torch.arange(len(files)))
        held = [] if self.rows.cache_files else self._digests(numbers)  # rows in memory
        return digest_of(numbers, torch.from_numpy(sizes), of_files, *held)

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
