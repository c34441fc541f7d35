"""Samplers by name and from files."""

import re
from pathlib import Path

import pytest
import torch

from measuring import evaluated, refused, sets, sitkit, trained
from released import CPU, LOADERS, convert
from sitkit.recipes import load_run
from sitkit.recipes.experiment.auto_values import resolve_auto
from sitkit.recipes.experiment.overrides import with_settings
from sitkit.recipes.experiment.packaged import samplers, summary
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.experiment.sampler_files import with_sampler
from sitkit.recipes.network.build import load_network
from sitkit.recipes.sampling.generator import SampleGenerator, generate
from sitkit.recipes.sampling.sample_folder import CONTENT
from sitkit.recipes.support.errors import UserError

WHOLE = ["sampler.precision=tf32", "sampler.interval=[0.0,1.0]"]
ODE = [*WHOLE, "sampler.kind=ode", "sampler.solver=heun", "sampler.times=uniform", "sampler.steps=125"]
ODE += ["sampler.last=none"]
SDE = [*WHOLE, "sampler.kind=sde", "sampler.solver=euler_maruyama", "sampler.times=uniform", "sampler.steps=250"]
SDE += ["sampler.last=mean", "sampler.last_step=0.04", "sampler.w.kind=sigma"]
CHAIN = [*WHOLE, "sampler.kind=sde", "sampler.solver=learned_ancestral", "sampler.times=timesteps"]
CHAIN += ["sampler.steps=250", "sampler.last=none"]
PUBLISHED = {
    "official-ode": ODE,
    "official-sde": [*SDE, "sampler.w.scale=1.0"],
    "repa-sde": [*SDE, "sampler.w.scale=2.0"],
    "ddpm-250": CHAIN,
}
"""The settings of published results, each key given explicitly."""


def family_of(name: str) -> str:
    """Return the family of networks of a sampler."""
    return "dit" if name in ("ddpm-250", "ddim-50") else "sit"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recipe]:
    folders = {family: tmp_path_factory.mktemp(family) for family in LOADERS}
    return {family: convert(folder, family, in_channels=3, depth=1).recipe() for family, folder in folders.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_samplers_equal_their_settings(name: str, recipes: dict[str, Recipe]) -> None:
    bases = [recipes[family_of(name)]]
    if name != "ddpm-250":
        bases += [read_recipe("imagenet256-b"), read_recipe("imagenet512-xl")]
    for recipe in bases:
        assert resolve_auto(with_sampler(recipe, name)) == resolve_auto(with_settings(recipe, PUBLISHED[name]))


OTHER = ["sampler.path=gvp", "sampler.kind=sde", "sampler.w.kind=kl", "sampler.times=shifted", "sampler.last=euler"]
OTHER += ["sampler.last_step=0.3", "sampler.interval=[0.1,0.9]"]


@pytest.mark.parametrize("name", samplers())
def test_a_named_sampler_replaces_the_runs_sampler(name: str, recipes: dict[str, Recipe]) -> None:
    """All keys but those without effect: w without noise or with a learned variance, and the length of no last step."""
    recipe = recipes[family_of(name)]
    one, other = (with_sampler(base, name) for base in (recipe, with_settings(recipe, OTHER)))
    unused = {"w"} if one.sampler.kind == "ode" or name == "ddpm-250" else set()
    unused |= {"last_step"} if one.sampler.last == "none" else set()
    assert one.sampler.model_dump(exclude=unused) == other.sampler.model_dump(exclude=unused)
    assert one.guidance == recipe.guidance


@pytest.mark.parametrize("name", samplers())
def test_the_first_line_states_the_nfe(name: str, recipes: dict[str, Recipe], tmp_path: Path) -> None:
    run = convert(tmp_path, family_of(name), in_channels=3, depth=1)
    recipe, split = with_sampler(run.recipe(), name), run.recipe().data.build()
    generator = SampleGenerator(load_network(recipe, split, run.latest(), CPU), recipe, split, 0)
    batch = generate(generator, 2, torch.zeros(2, dtype=torch.long), quiet=True)
    stated = re.fullmatch(r".* (\d+) NFE", summary(samplers()[name]))
    assert stated
    assert batch.calls == int(stated[1])
    number = re.search(r"-(\d+)$", name)
    assert number is None or number[1] == stated[1]
    assert re.search(r"^# Source: .+", samplers()[name], flags=re.MULTILINE)


def test_a_name_takes_precedence_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("euler-50", "mine", "mine.toml"):
        Path(name).write_text("[sampler]\nsteps = 7\n")
    recipe = read_recipe("digits")
    steps = {source: with_sampler(recipe, source).sampler.steps for source in ("euler-50", "./euler-50", "mine")}
    assert steps == {"euler-50": 50, "./euler-50": 7, "mine": 7}
    assert with_sampler(recipe, "mine.toml").sampler.steps == with_sampler(recipe, Path("euler-50")).sampler.steps == 7
    known = ", ".join(samplers())
    with pytest.raises(UserError, match=rf"no sampler 'heun-5' \(did you mean 'heun-50'\?\); known: {known}, or"):
        with_sampler(recipe, "heun-5")
    with pytest.raises(UserError, match=r"no\.toml: cannot be read: No such file"):
        with_sampler(recipe, "no.toml")
    with pytest.raises(UserError, match=r"ddpm-250: sampler\.solver 'learned_ancestral' needs a learned variance"):
        with_sampler(recipe, "ddpm-250")


def test_samples_do_not_depend_on_the_name_of_their_sampler(tmp_path: Path) -> None:
    run, out = trained(tmp_path / "run"), tmp_path / "samples"
    assert sitkit("sample", run, "--samples", 4, "--out", out, "--sampler", "few-calls-sde")[0] == 0
    content = (out / CONTENT).read_text()
    assert "few-calls" not in content
    settings = sets("sampler.kind=sde", "sampler.solver=exponential", "sampler.times=power", "sampler.steps=20")
    code, said = sitkit("sample", run, "--samples", 4, "--out", out, *settings)
    assert code == 0, said
    assert (out / CONTENT).read_text() == content
    assert (
        load_run(run, sampler="few-calls-sde").recipe == load_run(run, [one for one in settings if "=" in one]).recipe
    )
    assert "few-calls-sde" in refused("sample", run, "--out", out, "--sampler", "few-calls-sd")
    report = evaluated(run, "--sampler", "heun-50", *sets("evaluation.num=12"), "--out", tmp_path / "report")
    assert report["manifest"]["recipe"]["sampler"]["solver"] == {"kind": "heun"}


def test_show_lists_and_prints_samplers(tmp_path: Path) -> None:
    code, said = sitkit("show")
    assert code == 0
    for name, text in samplers().items():
        assert f"  {name} " in said
        assert summary(text) in said
        assert sitkit("show", "--sampler", name) == (0, text)
    code, said = sitkit("show", "digits", "--sampler", "heun-50", "--set", "sampler.steps=9")
    assert code == 0
    (tmp_path / "shown.toml").write_text(said)
    assert read_recipe(str(tmp_path / "shown.toml")) == resolve_auto(
        with_settings(with_sampler(read_recipe("digits"), "heun-50"), ["sampler.steps=9"])
    )
    assert "give a recipe" in refused("show", "--set", "sampler.steps=9")
