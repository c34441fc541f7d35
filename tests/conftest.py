"""Settings and fixtures of all tests."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("sitkit", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("sitkit")


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()
