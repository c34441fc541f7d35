"""What `sitkit reference` does: from real images to a file of their statistics."""

import shutil
from pathlib import Path

import torch

from ..experiment import slots
from ..storage.work_partition import WorkPartition
from ..support.errors import UserError
from .feature_extraction import FeatureExtraction
from .feature_statistics import load, save
from .reference import of_path


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
    """Write the statistics of images, and return a line about them; None for processes that only help.

    What is under way stands in a hidden folder beside the file, which is removed.

    Args:
        source: a folder of images, or an npz with `arr_0`.
        out: the file.
        image: (C, H, W) of the images.
        features: the extractor, a kind or its table in TOML.
        crop: whether images of another size are cut to this one.
        batch: images at once.
        device: where to compute.
        partition: which of the processes this is.

    Raises:
        UserError: images cannot be read or are of another size, a package is missing, or there is no memory for so many
            features.
    """
    if out.suffix != ".npz":
        raise UserError(f"--out must end in .npz, got {out}")
    component = slots.FEATURES.read(features)
    aside = out.with_name(f".{out.name}.parts")
    how = FeatureExtraction(component, component.build(), batch, device, partition, aside)
    how.check(image)
    found = of_path(source, image, (), how, crop)
    if found is None:
        return None
    about = {"source": str(source), "features": how.describe(), "image": list(image), "crop": crop}
    save(found.statistics, about, out)
    shutil.rmtree(aside, ignore_errors=True)
    statistics, _ = load(out)
    return f"{out}: statistics of {statistics.count} images by {how.extractor.name}"
