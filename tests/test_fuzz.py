"""Some cases of `fuzzing` of each kind; the variable FUZZ_CASES sets how many."""

import os
from pathlib import Path

import pytest
from bad_input import KINDS
from fuzzing import World, case

CASES = int(os.environ.get("FUZZ_CASES", "8"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_input_ends_in_a_line(world: World, kind: str) -> None:
    for number in range(CASES):
        _, words, why = case(0, number, world, kind)
        assert why is None, f"case {number}: {words}: {why}"


def test_failures_are_seen(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise TypeError("as if by mistake")

    monkeypatch.setattr("sitkit.recipes.experiment.read_recipe.read_recipe", crash)
    cases = (case(0, number, world, "keys") for number in range(99))  # some end before the recipe is read
    assert any(why is not None and "as if by mistake" in why for _, _, why in cases)
