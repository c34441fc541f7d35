"""The command line.

Torch and the recipes are imported by the command that needs them, so that `--help` answers at once.
"""

import os

from . import convert as convert
from . import encode as encode
from . import evaluate as evaluate
from . import likelihood as likelihood
from . import sample as sample
from . import show as show
from . import study as study
from . import train as train
from . import tune as tune
from .common import app as app
from .errors import one_interrupt
from .threads import choose_wait_policy


def main() -> None:
    """Run the command line."""
    choose_wait_policy(os.environ)
    with one_interrupt():
        app(prog_name="sitkit")
