"""Renamed keys of recipes: the old name means the same, and a note names the new one."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from sitkit.recipes.experiment.overrides import recipe_from_table, with_settings
from sitkit.recipes.experiment.read_recipe import read_recipe, recipe_from_stored
from sitkit.recipes.experiment.recipe import Compute, Recipe
from sitkit.recipes.experiment.recipe_toml import recipe_to_toml
from sitkit.recipes.experiment.renamed_keys import RENAMED, with_new_keys, with_old_keys
from sitkit.recipes.study.grid import grid_of
from sitkit.recipes.study.study_file import read_study
from sitkit.recipes.support import progress
from sitkit.recipes.support.errors import UserError

OLD = {"accumulate": 4, "recompute": True}
KEYS = ["6f0cbf32654b", "7ae0eaa92642"]
"""Of the networks of `compute.accumulate = [1, 2]` over digits, before the key was renamed."""
NOTES = [f"{old} is now named {new}; the old name is still accepted" for old, new in RENAMED.items()]


@pytest.fixture(autouse=True)
def _new_process() -> None:
    """Notes are printed once a process."""
    progress.print_once.cache_clear()


@pytest.fixture
def wanted() -> Recipe:
    return read_recipe("digits", ["compute.gradient_accumulation=4", "compute.activation_checkpointing=true"])


def old_table(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as an earlier version wrote it."""
    return with_old_keys(recipe.model_dump(mode="json"))


def test_old_names_are_accepted_with_one_note(
    wanted: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = {**tomllib.loads(recipe_to_toml(read_recipe("digits"))), "compute": OLD}
    toml, stored_file = tmp_path / "own.toml", tmp_path / "recipe.json"
    toml.write_text(
        recipe_to_toml(wanted)
        .replace("gradient_accumulation", "accumulate")
        .replace("activation_checkpointing", "recompute")
    )
    stored_file.write_text(json.dumps(old_table(wanted)))
    assert "accumulate = 4" in toml.read_text().splitlines()
    ways: list[Callable[[], Compute]] = [
        lambda: read_recipe(str(toml)).compute,
        lambda: read_recipe(str(stored_file)).compute,
        lambda: recipe_from_table(table).compute,
        lambda: read_recipe("digits", ["compute.accumulate=4", "compute.recompute=true"]).compute,
        lambda: read_recipe("digits", ["compute={accumulate=4, recompute=true}"]).compute,
        lambda: with_settings(wanted, ["compute.accumulate=4", "compute.recompute=true"]).compute,
    ]
    for way in ways:
        progress.print_once.cache_clear()
        assert [way(), way()] == [wanted.compute] * 2
        assert capsys.readouterr().err.splitlines() == NOTES


def test_new_names_are_read_shown_and_dumped_without_a_note(wanted: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"gradient_accumulation = 4", "activation_checkpointing = true"} <= {*recipe_to_toml(wanted).splitlines()}
    assert recipe_from_table(wanted.model_dump(mode="json")) == wanted
    assert not capsys.readouterr().err


def test_recipes_of_earlier_versions_are_read_silently(wanted: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe_from_stored(old_table(wanted)) == wanted
    assert {"source": "noise", **with_new_keys(old_table(wanted))} == wanted.model_dump(mode="json")
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    "settings",
    [
        ("compute.accumulate=2", "compute.gradient_accumulation=2"),
        ("compute.gradient_accumulation=2", "compute.accumulate=2"),
        ("compute={accumulate=2, gradient_accumulation=2}",),
    ],
)
def test_both_names_at_once_are_refused(settings: tuple[str, ...]) -> None:
    message = (
        "^compute.accumulate is the old name of compute.gradient_accumulation: give only compute.gradient_acc[a-z]+$"
    )
    with pytest.raises(UserError, match=message):
        read_recipe("digits", settings)
    with pytest.raises(UserError, match=message):
        recipe_from_table({"compute": {"accumulate": 2, "gradient_accumulation": 2}})


def test_a_later_setting_changes_a_key_under_either_name(wanted: Recipe) -> None:
    for key in ("accumulate", "gradient_accumulation"):
        assert with_settings(wanted, [f"compute.{key}=8"]).compute.gradient_accumulation == 8
        settings = ["compute={accumulate=2}", f"compute.{key}=8"]
        assert read_recipe("digits", settings).compute.gradient_accumulation == 8


def test_networks_of_a_study_have_the_key_that_they_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grids = []
    for name in ("accumulate", "gradient_accumulation"):
        file = tmp_path / f"{name}.toml"
        file.write_text(f'base = "digits"\nseeds = [0]\n[axes]\ncompute.{name} = [1, 2]\n')
        grids.append(grid_of(read_study(file)))
    first, second = ([*grid.networks] for grid in grids)
    assert first == second == KEYS
    assert [*grids[0].cells] == [*grids[1].cells]
    assert capsys.readouterr().err.splitlines() == NOTES[:1]
