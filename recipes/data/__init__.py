"""What a recipe's `data` names: functions that return a `Split`.

A data set of one's own is such a function, `"package.module:name"`, whose parameters are the keys beside it.
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
