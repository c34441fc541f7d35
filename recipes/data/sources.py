"""Sources of two-sided paths: the kinds that the table `source` of a recipe names.

A source is made of the image (`Masked`, `Coarse`, `Noisy`), or it is another data set. A custom source is a class whose
instances are functions (x, noise, y) -> source, or a function that returns a `Split`, named as
`kind = "package.module:Name"`.
"""

from sitkit.objectives import sources

from . import digits, edm2, emoji, folder, huggingface, latents, lightningdit, mnist5k

Masked, Coarse, Noisy = sources.Masked, sources.Coarse, sources.Noisy

__all__ = [
    "Coarse",
    "Masked",
    "Noisy",
    "digits",
    "edm2",
    "emoji",
    "folder",
    "huggingface",
    "latents",
    "lightningdit",
    "mnist5k",
]
