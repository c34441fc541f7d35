"""Export samples for other programs, one shard at a time."""

import filecmp
import json
import shutil
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image

from ..data.classes import class_numbers
from ..storage.files import is_occupied, temporary_folder
from ..storage.filesystems import move_folder
from ..support.errors import UserError
from ..support.progress import progress
from .sample_folder import SampleFolder

LABELS = "labels.json"


def export(samples: SampleFolder, out: Path) -> None:
    """Write samples as an npz for ADM's evaluator if `out` ends in .npz, or else as a folder of PNG files.

    The npz has `arr_0` (N, H, W, 3) uint8 and, if there are classes, `labels` (N,) int64: the names of the classes if
    these are numbers, or else their indices. The files are named by index, `00000000.png`, ...; `labels.json` beside
    them has the class name of each file. Grey images have three equal channels in the array, and one in the files.

    Raises:
        UserError: a shard is missing or damaged, or `out` cannot be written. An npz is either complete or absent.
    """
    samples.check()
    try:
        if out.suffix == ".npz":
            out.parent.mkdir(parents=True, exist_ok=True)
            draft = out.with_name(f".{out.name}.tmp")
            try:
                _write_array(samples, draft)
                draft.replace(out)
            finally:
                draft.unlink(missing_ok=True)
        else:
            _write_files(samples, out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error


def _write_array(samples: SampleFolder, file: Path) -> None:
    _, height, width = samples.content.image
    with zipfile.ZipFile(file, "w") as archive, progress("exporting", len(samples), unit="images") as advance:
        with archive.open("arr_0.npy", "w", force_zip64=True) as stream:
            _write_header(stream, (len(samples), height, width, 3), np.dtype(np.uint8))
            for shard in samples.shards.indices:
                pixels = samples.get(shard).pixels
                stream.write(pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy().tobytes())
                advance(len(pixels))
        if samples.labels is not None:
            numbers = torch.tensor([*class_numbers(samples.content.classes)], dtype=torch.int64)
            with archive.open("labels.npy", "w") as stream:
                _write_header(stream, (len(samples),), np.dtype(np.int64))
                stream.write(numbers[samples.labels].numpy().tobytes())


def _write_header(stream: IO[bytes], shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})


def _write_files(samples: SampleFolder, folder: Path) -> None:
    names = [f"{number:08d}.png" for number in range(len(samples))]
    if is_occupied(folder) and not (folder.is_dir() and {file.name for file in folder.iterdir()} <= {*names, LABELS}):
        raise UserError(f"{folder} holds other files; give another --out")
    with temporary_folder(folder) as draft:
        with progress("exporting", len(samples), unit="images") as advance:
            for shard in samples.shards.indices:
                for number, pixels in zip(samples.shards.rows(shard), samples.get(shard).pixels, strict=True):
                    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
                    Image.fromarray(array.contiguous().numpy()).save(draft / names[number])
                    advance(1)
        if samples.labels is not None:
            classes = [samples.content.classes[label] for label in samples.labels.tolist()]
            (draft / LABELS).write_text(json.dumps(dict(zip(names, classes, strict=True)), indent=0))
        _replace(folder, draft)


def _replace(folder: Path, draft: Path) -> None:
    """Replace a folder by the draft, if the folder is absent or holds only files that are equal in the draft."""
    if folder.is_dir():
        for file in folder.iterdir():
            if not filecmp.cmp(file, draft / file.name, shallow=False):
                raise UserError(f"{file} is an image of other samples; give another --out")
        shutil.rmtree(folder)
    move_folder(draft, folder, LABELS)
