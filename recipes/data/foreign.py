"""Latents that the tools of other projects have encoded."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from .classes import Classes
from .images import Split
from .moments import moments
from .parts import divide
from .shards import Normalised, normalisation, shards


def lightningdit(
    path: str,
    vae: str,
    multiplier: float = 1.0,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the latents z that LightningDiT and its kin keep as safetensors (Yao et al., arXiv 2501.01423).

    The folder holds `*.safetensors`, in the order of their names, each with `latents` and `latents_flip`, those of the
    mirror images, (N, C, H, W), and `labels` (N,); and `latents_stats.pt`, mean and standard deviation of each channel.
    A state is (z - mean) / std * multiplier. Files are mapped into memory. The labels that occur in `path` are the
    classes, named by their numbers.

    Args:
        path: the folder.
        vae: the autoencoder that decodes z, a folder or a name, as `vae.py` takes it.
        multiplier: as `latent_multiplier` of the configuration that a network was trained with.
        heldout: a folder of latents to compare with; they are normalised as those of `path`.
        split: or else the share of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder, a file or a key is missing or of another shape, or the share cannot be.
    """
    from .vae import decoder

    scheme = normalisation(Path(path), multiplier)
    decode = Normalised(scheme, decoder(vae, scale=1.0))
    images = shards(Path(path), scheme, decode)
    compared = None if heldout == "none" else shards(Path(heldout), scheme, decode)
    classes = Classes.of(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    return Split(*divide(images, compared, split), classes.names, decode, _told(path, classes))


def edm2(
    path: str,
    vae: str = "stabilityai/sd-vae-ft-mse",
    scale: float = 0.18215,
    heldout: str = "none",
    split: float | Literal["none"] = "none",
) -> Split:
    """Return the latents that EDM2's `dataset_tool.py encode` keeps, and REPA's and its kin's (arXiv 2410.06940).

    The folder holds one `.npy` an image, (2C, H, W), at any depth: the means of its latents, then their standard
    deviations; and `dataset.json`, {"labels": [[file, label], ...]} or {"labels": null}. A state is drawn anew each
    time, (mean + std * noise) * scale. There are no mirror images: `train.flip` must be 0. The labels that occur
    are the classes, named by their numbers.

    EDM2's own tool gives the autoencoder pixels in [0, 1] where REPA's, and `vae.py`, have [-1, 1]: its latents train
    as well, and what is decoded from them has pixels of 127 to 255.

    Args:
        path: the folder; of REPA's, it is `vae-sd`.
        vae: the autoencoder, a folder or a name, as `vae.py` takes it.
        scale: what its latents are multiplied by; 0.18215 is Stable Diffusion's (Rombach et al., arXiv 2112.10752).
        heldout: a folder of latents to compare with.
        split: or else the share of every class to train on, the rest being held out.

    Raises:
        ValueError: a folder or a label is missing, or the scale or the share cannot be.
        Problem: a file is damaged or of another shape than the first; when it is asked for.
    """
    from .vae import decoder

    decode = decoder(vae, scale=scale)
    images, labelled = moments(Path(path), scale, decode)
    compared = None if heldout == "none" else moments(Path(heldout), scale, decode)[0]
    classes = Classes.of(images.labels)
    images = replace(images, labels=classes.compact(images.labels, path))
    if compared is not None:
        compared = replace(compared, labels=classes.compact(compared.labels, heldout))
    told = _told(path, classes) if labelled else ()
    return Split(*divide(images, compared, split), classes.names if labelled else (), decode, told)


def _told(path: str, classes: Classes) -> tuple[str, ...]:
    left_out = classes.left_out()
    return (f"{path}: {left_out}, named by their numbers",) if left_out else ()
