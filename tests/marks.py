"""Marks of test parameters."""

import pytest


def slow_unless(fast: bool, *values: object) -> object:
    """Return the parameters of one test, which `make test` runs only if it is fast and `make test-all` always."""
    return pytest.param(*values, marks=() if fast else pytest.mark.slow)
