"""The largest seeds and sizes of samples, for the command line and for Python; and whole numbers within limits."""

from numbers import Integral

from .errors import UserError

MOST_SEED = 2**62
"""The largest seed. Further sets of samples have the next seeds, which must fit 64 bits."""
MOST_ROWS = 2**20
"""The largest number of samples or images at once."""
MOST_IMAGES = 10**9
"""The largest number of samples in a folder."""


def whole_number(name: str, value: object, least: int, most: int) -> int:
    """Return a value as an int, for example one of numpy.

    Raises:
        UserError: it is not a whole number from `least` to `most`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
        raise UserError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return int(value)
