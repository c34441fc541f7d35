"""What a recipe's `data` names: functions that return a `Split`.

A data set of one's own is such a function, `"package.module:name"`, whose parameters are the keys beside it.
"""

from .packaged import digits as digits
from .packaged import mnist5k as mnist5k
