"""Recipes: names become components, and errors say how to fix them."""

import json
from pathlib import Path

import pytest
import torch

from sitkit.interpolants import VP, Linear
from sitkit.objectives import Data, Matching, Shifted, Velocity
from sitkit.recipes.experiment import slots
from sitkit.recipes.experiment.auto_values import resolve_auto, resolve_sampler, time_grid
from sitkit.recipes.experiment.components import dump
from sitkit.recipes.experiment.overrides import recipe_from_table
from sitkit.recipes.experiment.packaged import presets
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe_toml import recipe_to_toml
from sitkit.recipes.runs.run import Run
from sitkit.recipes.support.errors import UserError
from sitkit.samplers import KL, Heun, Sigma, SineSquared, plan, white


@pytest.mark.parametrize("preset", presets())
def test_presets_read_and_come_back_from_json(preset: str) -> None:
    recipe = read_recipe(preset)
    assert recipe_from_table(json.loads(recipe.model_dump_json())) == recipe


def test_a_component_is_its_kind_and_fields_and_back() -> None:
    for path in (Linear(), VP(), VP(beta_max=12.0)):
        component = slots.PATH.parse(path)
        assert component is not None
        assert component.build() == path
        assert slots.PATH.parse(dump(component)) == component
    component = slots.DIFFUSION.parse({"kind": "KL", "scale": 2.0})
    assert component is not None
    assert component.build(path=Linear()) == KL(Linear(), 2.0)
    assert slots.DIFFUSION.parse(SineSquared(3.0)) == slots.DIFFUSION.parse({"kind": "sine-squared", "scale": 3.0})


def test_nested_components_are_built_too() -> None:
    component = slots.OBJECTIVE.parse(
        {"kind": "matching", "predict": "data", "measure": "velocity", "weight": "likelihood"}
    )
    assert component is not None
    objective = component.build(path=Linear())
    assert isinstance(objective, Matching)
    assert (objective.predict, objective.measure) == (Data, Velocity)
    assert objective.weight is not None
    assert objective.weight(torch.tensor([0.5])) == 4


def test_a_custom_path() -> None:
    recipe = read_recipe("digits", ["path=worlds:Quadratic"])
    assert type(recipe.path.build()).__name__ == "Quadratic"
    with pytest.raises(UserError, match=r"'worlds:Mixture' is no path"):
        read_recipe("digits", ["path=worlds:Mixture"])
    with pytest.raises(UserError, match="cannot be imported"):
        read_recipe("digits", ["path=nowhere:Nothing"])
    with pytest.raises(UserError, match=r"'worlds:slope' is no w but a function: name a class"):
        read_recipe("digits", ["sampler.w=worlds:slope"])


def test_a_table_may_be_given_in_part() -> None:
    recipe = read_recipe("digits").model_dump(mode="json")
    for name in ("checkpoint", "log", "grid"):
        del recipe[name]
    made = recipe_from_table(recipe, ["checkpoint.keep=5", "log.sinks=['tensorboard']"])
    assert (made.checkpoint.every, made.checkpoint.keep, made.log.every, made.grid.every) == (1000, 5, 100, 1000)


def test_settings_are_toml_or_strings_and_a_new_kind_drops_old_fields(tmp_path: Path) -> None:
    recipe = read_recipe(
        "digits", ["path={kind='vp', beta_max=9.0}", "objective.predict=noise", "optimizer.lr=.5", "train.steps=7"]
    )
    assert recipe.path.build() == VP(beta_max=9.0)
    assert (recipe.optimizer.lr, recipe.train.steps) == (0.5, 7)
    changed = recipe_from_table(
        recipe.model_dump(mode="json"), ["path.kind=linear", "sampler.w.kind=constant", "sampler.w.c=0.5"]
    )
    assert changed.path.build() == Linear()
    assert dump(changed.sampler.w) == {"kind": "constant", "c": 0.5}
    changed = recipe_from_table(recipe.model_dump(mode="json"), ["path.kind=vp", "sampler.kind=sde"])
    assert changed.path == recipe.path
    assert changed.sampler.steps == recipe.sampler.steps


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "objective.predcit=noise",
            "objective.predcit: unknown key (did you mean 'predict'?); known: kind, predict, measure",
        ),
        ("bakbone.depth=3", "bakbone: unknown key (did you mean 'backbone'?)"),
        ("path.beta_mn=3", "path.beta_mn: unknown key; known: kind"),
        ("sampler.w.scal=2.0", "sampler.w.scal: unknown key (did you mean 'scale'?)"),
        (
            "objective.predict=nois",
            "objective.predict: no quantity 'nois' (did you mean 'noise'?); known: velocity, noise",
        ),
        ("path=vpp", "path: no path 'vpp' (did you mean 'vp'?); known: bridge, ddpm, "),
        ("train.steps=many", "train.steps: should be a valid integer, got 'many'"),
        ("train.batch=0", "train.batch: should be greater than or equal to 1, got 0"),
        ("train.batch=1.5", "train.batch: should be a valid integer"),
        ("train.label_dropout=2.0", "train.label_dropout: should be less than or equal to 1"),
        ("optimizer.lr=nan", "optimizer.lr: should be a finite number"),
        ("sampler.kind=pde", "sampler.kind: should be 'ode' or 'sde', got 'pde'"),
        ("sampler.solver=euler_maruyama", "does not fit kind = 'ode'"),
        ("sampler.last=mean", "is for SDEs"),
        ("guidance.interval=[0.7, 0.2]", "low < high"),
        ("guidance.interval=[0.7]", "guidance.interval: has too few entries"),
        ("seed=-1", "seed: should be greater than or equal to 0"),
        ("data.kind=os:getcwd", "is no data"),
        ("train.steps", "--set takes key=value"),
        ("backbone={depth=3}", "backbone: a kind is needed"),
    ],
)
def test_a_bad_setting_is_one_line_that_helps(setting: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_recipe("digits", [setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_error_has_a_line() -> None:
    with pytest.raises(UserError) as caught:
        read_recipe("digits", ["train.steps=0", "path=vpp", "emma.decay=1"])
    assert len(str(caught.value).splitlines()) == 3


def test_invalid_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preset 'digit' \\(did you mean 'digits'\\?\\); known: digits"):
        read_recipe("digit")
    with pytest.raises(UserError, match="there is no file"):
        read_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "broken.toml").write_text("[train\nsteps = 3")
    with pytest.raises(UserError, match="is not TOML"):
        read_recipe(str(tmp_path / "broken.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(str(tmp_path / "bytes.toml"))
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(UserError, match="data: is missing"):
        read_recipe(str(tmp_path / "empty.toml"))


def test_stored_shifts_that_led_to_the_data_are_refused_with_their_new_value(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for settings in (
        [],
        ["train.times={kind='shifted', shift=0.5}"],
        ["train.times={kind='stratified', times={kind='shifted', shift=2.0}}"],
    ):
        recipe = read_recipe("digits", settings)
        run.recipe_file.write_text(recipe.model_dump_json())
        assert run.recipe() == recipe
        old = recipe.model_dump_json().replace(',"towards":"noise"', "")
        run.recipe_file.write_text(old)
        if not settings:
            assert run.recipe() == recipe
            continue
        with pytest.raises(UserError, match=r"train.times.*shift = .* towards the noise: write") as caught:
            run.recipe()
        line = str(caught.value)
        assert "\n" not in line
        wanted = '"shift": 2, "towards": "noise"' if "0.5" in settings[0] else '"shift": 0.5, "towards": "noise"'
        assert wanted in line
    same = read_recipe("digits", ["train.times={kind='shifted', shift=1.0}"]).model_dump_json()
    run.recipe_file.write_text(same.replace(',"towards":"noise"', ""))
    assert run.recipe().train.times.build() == Shifted()


def test_a_shown_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    for settings in ([], ["path=vp", "sampler.kind=sde"], ["objective.predict=data", "sampler.w=kl"]):
        recipe = read_recipe("digits", settings)
        (tmp_path / "shown.toml").write_text(recipe_to_toml(recipe))
        assert read_recipe(str(tmp_path / "shown.toml")) == resolve_auto(recipe)
        assert "# auto" in recipe_to_toml(recipe)


HEUN, MARUYAMA = ["sampler.solver=heun"], ["sampler.kind=sde", "sampler.solver=euler_maruyama"]


@pytest.mark.parametrize(  # SiT, table 10, in this project's time
    ("settings", "interval", "last"),
    [
        (HEUN, (0, 1), "none"),
        ([*HEUN, "path=gvp"], (0, 1), "none"),
        ([*HEUN, "path=vp"], (0, 1 - 1e-5), "none"),
        ([*HEUN, "path=vp", "objective.predict=score"], (0, 1 - 1e-5), "none"),
        ([*HEUN, "objective.predict=score", "sampler.steps=24"], (1 / 25, 1), "none"),
        ([*HEUN, "path=gvp", "objective.predict=noise", "sampler.steps=1000000"], (1e-5, 1), "none"),
        ([*HEUN, "objective.predict=data"], (0, 1), "euler"),
        (MARUYAMA, (0, 1), "mean"),
        ([*MARUYAMA, "path=vp"], (0, 1), "mean"),
        ([*MARUYAMA, "path=vp", "sampler.w=kl"], (0, 1), "mean"),
        ([*MARUYAMA, "objective.predict=score", "sampler.steps=9999"], (1e-3, 1), "mean"),
        ([*MARUYAMA, "sampler.w=kl", "sampler.steps=49"], (1 / 50, 1), "mean"),
        ([*HEUN, "path=worlds:Quadratic", "sampler.steps=9999"], (1e-2, 1), "none"),
        ([], (0, 1), "none"),
        (["path=vp", "objective.predict=data"], (0, 1), "none"),
        (["objective.predict=score", "sampler.steps=24"], (1 / 25, 1), "none"),
        (["sampler.kind=sde", "sampler.w=kl"], (0, 1), "none"),
        (["sampler.kind=sde", "sampler.last=mean"], (0, 1), "mean"),
        (["path=worlds:Quadratic", "sampler.steps=9999"], (1e-2, 1), "none"),
    ],
)
def test_auto_is_the_interval_that_the_solver_needs(
    settings: list[str], interval: tuple[float, float], last: str
) -> None:
    recipe = read_recipe("digits", settings)
    sampler = resolve_sampler(recipe)
    assert sampler.interval == pytest.approx(interval, abs=1e-12)
    assert sampler.last == last
    times = time_grid(sampler, recipe.path.build())
    assert len(times) == sampler.steps + 1
    assert times[[0, -1]].tolist() == pytest.approx(interval, abs=1e-12)
    if last == "mean":
        assert times[-2].item() == pytest.approx(0.96)


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("path", ["linear", "vp"])
def test_the_default_sampler_is_the_plan(kind: str, path: str) -> None:
    recipe = read_recipe("digits", [f"sampler.kind={kind}", f"path={path}"])
    sampler, built = resolve_sampler(recipe), recipe.path.build()
    velocity, w = torch.nn.Identity(), Sigma(built) if kind == "sde" else None
    expected = plan(velocity, built, w=w, evaluations=sampler.steps)
    assert sampler.solver is not None
    assert sampler.solver.build(velocity=velocity, path=built, w=w, noise=white) == expected.solver
    assert torch.equal(time_grid(sampler, built), expected.times)


@pytest.mark.parametrize(
    ("settings", "interval"),
    [
        ([], (0, 1)),
        (["path=vp"], (0, 1 - 1e-5)),
        (["objective.predict=noise"], (0, 1)),
        (["objective.predict=score", "objective.measure=velocity"], (1e-3, 1)),
        (["objective.predict=data", "objective.measure=velocity"], (0, 0.95)),
        (["objective.predict=noise", "objective.weight=likelihood"], (1e-3, 1 - 1e-3)),
        (["train.interval=[0.1, 0.9]"], (0.1, 0.9)),
    ],
)
def test_training_keeps_to_times_at_which_the_loss_is_finite(
    settings: list[str], interval: tuple[float, float]
) -> None:
    assert resolve_auto(read_recipe("digits", settings)).train.interval == pytest.approx(interval, abs=1e-12)


def test_one_step_is_enough_for_a_grid() -> None:
    for settings in ([], HEUN, MARUYAMA, ["objective.predict=data"]):
        sampler = resolve_sampler(read_recipe("digits", [*settings, "sampler.steps=1"]))
        assert time_grid(sampler, Linear()).tolist() == [0, 1]


def test_solvers_are_found_by_name() -> None:
    sampler = resolve_sampler(read_recipe("digits", HEUN))
    assert sampler.solver is not None
    assert isinstance(sampler.solver.build(velocity=lambda x, t: x), Heun)
