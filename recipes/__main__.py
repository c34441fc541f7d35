"""`python -m sitkit.recipes` is the command line."""

from .cli import main

main()
