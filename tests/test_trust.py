"""Reading a folder runs no code: custom components are imported only if the user asks for them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli import sitkit

from sitkit.recipes.experiment import slots
from sitkit.recipes.experiment.overrides import recipe_from_table, with_settings
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.sampler_files import with_sampler
from sitkit.recipes.experiment.settings import trust_in_settings
from sitkit.recipes.runs.run import Run
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.json_toml import flatten
from sitkit.recipes.support.trust import TRUST_EVERYTHING, TRUST_NOTHING, Trust

EVIL = """
import pathlib
from sitkit.interpolants import Linear
pathlib.Path("imported").touch()

class Path(Linear):
    pass

class W:
    def __call__(self, t):
        return 1 - t

def data(path: str = "."):
    pathlib.Path("called").touch()
"""
PLACES: dict[str, Any] = {
    "path": "evil:Path",
    "sampler.path": {"kind": "evil:Path"},
    "sampler.w": "evil:W",
    "data": {"kind": "evil:data"},
    "train.times": {"kind": "shifted", "times": "evil:W"},
    "objective.predict": "evil:W",
    "evaluation.features": {"kind": "dinov2", "checkout": "evil", "weights": "evil/hubconf.py"},
}
"""Of a recipe, with code that they may name: nested, and by a field as well."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a working directory with a module in it, and a folder of a run."""
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "called").exists()
    sys.modules.pop("evil", None)


def table_with(key: str, value: Any) -> dict[str, Any]:
    table = read_recipe("digits").model_dump(mode="json")
    *sections, last = key.split(".")
    place = table
    for section in sections:
        place = place[section]
    place[last] = value
    return table


def write_run(place: Path, key: str = "path", value: Any = "evil:Path") -> None:
    (place / "run" / "recipe.json").write_text(json.dumps(table_with(key, value)))


COMMANDS: dict[str, list[str | int]] = {
    "show": ["show", "run"],
    "sample": ["sample", "run", "--out", "a.npz"],
    "evaluate": ["evaluate", "run"],
    "likelihood": ["likelihood", "run"],
    "replay": ["replay", "run", "--step", 1],
    "tune": ["tune", "run", "--over", "sampler.w", "--calls", 2],
    "train": ["train", "digits", "--out", "run"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_code_that_a_run_names(place: Path, command: str) -> None:
    write_run(place)
    code, said = sitkit(*COMMANDS[command])
    assert code == 2
    assert not (place / "imported").exists()
    assert said.startswith("sitkit: run/recipe.json: path: 'evil:Path' is code outside of sitkit")
    assert "--trust" in said
    assert said.count("\n") == 1
    code, said = sitkit(
        *COMMANDS[command], "--trust"
    )  # it is imported, and the command stops later, such as without a checkpoint
    assert "--trust" not in said
    assert (place / "imported").exists()


@pytest.mark.parametrize("key", PLACES)
def test_no_place_of_a_recipe_imports(place: Path, key: str) -> None:
    write_run(place, key, PLACES[key])
    code, said = sitkit("show", "run")
    assert code == 2
    assert "is code outside of sitkit" in said
    assert key.split(".", maxsplit=1)[0] in said
    assert not (place / "imported").exists()


def test_an_error_elsewhere_imports_nothing(place: Path) -> None:
    table = table_with("path", {"kind": "evil:Path", "betta": 1})
    table["train"]["stepps"] = 3
    (place / "run" / "recipe.json").write_text(json.dumps(table))
    code, said = sitkit("show", "run")
    assert code == 2
    assert "train.stepps: unknown key" in said
    assert not (place / "imported").exists()


def test_code_named_by_samples_is_not_imported(place: Path) -> None:
    manifest = {"recipe": table_with("path", "evil:Path")}
    content = {"count": 1, "shard": 1, "image": [1, 8, 8], "classes": [], "manifest": manifest}
    (place / "run" / "samples.json").write_text(json.dumps(content))
    for words in (["evaluate", "run"], ["export", "run", "--out", "a.npz"]):
        code, said = sitkit(*words)
        assert code == 2
        assert not (place / "imported").exists()
    assert "lacks 1 of 1 shards" in said


def test_code_named_by_a_sampler_file_is_refused(place: Path) -> None:
    file = place / "sampler.toml"
    file.write_text('[sampler]\nkind = "sde"\nw = "evil:W"\n')
    with pytest.raises(UserError, match=r"sampler.toml: sampler.w: 'evil:W' is code outside of sitkit"):
        with_sampler(read_recipe("digits"), file)
    assert not (place / "imported").exists()
    assert with_sampler(read_recipe("digits"), file, TRUST_EVERYTHING).sampler.w.kind == "evil:W"


def test_code_that_the_user_names_is_imported(place: Path) -> None:
    write_run(place, "seed", 0)
    code, said = sitkit("show", "run", "--set", "path=evil:Path")
    assert code == 0
    assert 'kind = "evil:Path"' in said
    write_run(place)
    recipe = Run(place / "run").recipe(trust_in_settings(["path=evil:Path"]))  # named again, it is asked for
    assert with_settings(recipe, ["seed=3"]).path.kind == "evil:Path"
    with pytest.raises(UserError, match="'evil:W' is code"):
        with_settings(recipe, ["sampler.w=evil:W"])
    (place / "own.toml").write_text('[data]\nkind = "digits"\n[path]\nkind = "evil:Path"\n')
    with pytest.raises(UserError, match="train: is missing"):
        read_recipe("own.toml")


def test_a_run_resumes_with_the_recipe_that_the_user_names(place: Path) -> None:
    recipe = read_recipe("digits", ["path=evil:Path"])
    split = recipe.data.build()
    for _ in range(2):
        with Run.open_for_training(place / "own", recipe, split) as run:
            assert run.recipe(Trust.of(recipe)) == recipe
    with (
        pytest.raises(UserError, match="'evil:Path' is code"),
        Run.open_for_training(place / "own", read_recipe("digits"), split),
    ):
        pass


def test_even_with_trust_a_component_is_a_class_or_function_with_fields(place: Path) -> None:
    table = read_recipe("digits").model_dump(mode="json")
    for key, kind, said in (
        ("data", "subprocess:getoutput", "is no data"),
        ("data", "shutil:rmtree", "is no data"),
        ("data", "os:system", "is no data"),
        ("data", "evil:data", "is no data"),
        ("train.coupling", "functools:partial", "is no coupling|cannot be read"),
        ("train.coupling", "..:x", "should be package.module:Name"),
        ("backbone", "a:b:c", "should be package.module:Name"),
        ("backbone", ":", "should be package.module:Name"),
        ("path", "evil:Missing", "cannot be imported"),
        ("path", "antigravity_of_none:X", "cannot be imported"),
    ):
        with pytest.raises(UserError, match=said):
            recipe_from_table(table, [f"{key}.kind={kind}"], TRUST_EVERYTHING)


def test_trust_is_of_names() -> None:
    assert Trust.of({"a": ["x:y", 3], "b": {"c": "z:w"}}, "v:u").names == {"x:y", "z:w", "v:u"}
    assert (Trust.of("a") | Trust.of("b")) == Trust.of("a", "b")
    (Trust.of("a") | TRUST_EVERYTHING).check("b")
    with pytest.raises(UserError, match="'b' is code"):
        TRUST_NOTHING.check("b")
    named = {key for key, value in flatten(read_recipe("digits").model_dump(mode="json")).items() if ":" in str(value)}
    assert not named  # so a default recipe needs no trust
    assert slots.PATH.find("vp", TRUST_NOTHING)
