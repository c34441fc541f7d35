"""What `sitkit reference` does: compute the statistics of real images, and store them in a file."""

import shutil
from pathlib import Path

import torch

from ..experiment import slots
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from .feature_extraction import FeatureExtraction
from .feature_statistics import load_statistics, save_statistics
from .reference import open_reference


def write_reference(
    source: Path,
    out: Path,
    image: tuple[int, int, int],
    features: str,
    crop: bool,
    batch: int,
    device: torch.device,
    partition: WorkPartition,
) -> str | None:
    """Write the statistics of images, and return a line about them; None except in process 0.

    Until the file is complete, features are in a hidden folder beside it, so that this can resume.

    Args:
        source: a folder of images, or an npz with `arr_0`.
        out: the file.
        image: (C, H, W) of the images.
        features: the extractor, a kind or its table in TOML.
        crop: whether images of another size are cropped to this one.
        batch: images at once.
        device: where to compute.
        partition: the part of the work of this process.

    Raises:
        UserError: images cannot be read or are of another size, a package is missing, or there is not enough
            memory.
    """
    if out.suffix != ".npz":
        raise UserError(f"--out must end in .npz, got {out}")
    component = slots.FEATURES.read(features)
    aside = out.with_name(f".{out.name}.parts")
    extraction = FeatureExtraction(component, component.build(), batch, device, partition, aside)
    extraction.check(image)
    found = open_reference(source, image, (), extraction, crop)
    if found is None:
        return None
    about = {"source": str(source), "features": extraction.describe(), "image": list(image), "crop": crop}
    save_statistics(found.statistics, about, out)
    shutil.rmtree(aside, ignore_errors=True)
    statistics, _ = load_statistics(out)
    return f"{out}: statistics of {statistics.count} images by {extraction.extractor.name}"
