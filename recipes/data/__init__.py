"""Data sets: the functions that the table `data` of a recipe names. Each returns a `Split`.

A custom data set is such a function, named as `kind = "package.module:function"`. The other keys of the table are its
arguments.
"""

from .absent import absent as absent
from .emoji import emoji as emoji
from .folder import folder as folder
from .huggingface import huggingface as huggingface
from .latents.edm2 import edm2 as edm2
from .latents.lightningdit import lightningdit as lightningdit
from .latents.reader import latents as latents
from .packaged import digits as digits
from .packaged import mnist5k as mnist5k
