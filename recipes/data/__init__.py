"""What a recipe's `data` names: functions that return a `Split`.

A data set of one's own is such a function, `"package.module:name"`, whose parameters are the keys beside it.
"""

from .absent import absent as absent
from .emoji import emoji as emoji
from .folder import folder as folder
from .foreign import edm2 as edm2
from .foreign import lightningdit as lightningdit
from .hf import huggingface as huggingface
from .latents import latents as latents
from .packaged import digits as digits
from .packaged import mnist5k as mnist5k
