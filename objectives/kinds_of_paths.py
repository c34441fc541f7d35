"""Checks that a path is of the kind that an objective takes: from noise, or two-sided."""

from typing import Any

from .protocols import TwoSidedPath


def check_from_noise(path: Any, objective: str) -> None:
    """Raise ValueError unless a path goes from noise to data."""
    if not hasattr(path, "sigma"):
        raise ValueError(f"{objective} takes a path from noise to data, such as Linear; got {path}: use Bridging")


def check_two_sided(path: Any, objective: str) -> None:
    """Raise ValueError unless a path goes from a source to data."""
    if not isinstance(path, TwoSidedPath):
        raise ValueError(f"{objective} takes a two-sided path, such as Bridge; got {path}: use Matching")
