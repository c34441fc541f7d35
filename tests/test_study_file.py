"""Study files: the networks and cells that they define, and errors in them."""

from pathlib import Path

import pytest

from sitkit.recipes.experiment.settings import settings_from_table, short_text
from sitkit.recipes.study.grid import grid_of
from sitkit.recipes.study.study_file import read_study
from sitkit.recipes.support.errors import UserError
from studies import AXES, SMALL, grid, sitkit


def test_settings_are_written_dotted_or_nested_and_components_are_put_whole() -> None:
    table = {"path.kind": "vp", "sampler": {"steps": 5, "w": {"kind": "sigma"}}, "train": {"interval": [0.0, 0.5]}}
    assert settings_from_table(table) == (
        'path.kind="vp"',
        "sampler.steps=5",
        'sampler.w={"kind" = "sigma"}',
        "train.interval=[0.0, 0.5]",
    )
    assert short_text({"kind": "sigma", "scale": 2.0}) == "sigma scale 2"


def test_a_section_with_a_kind_is_no_component(tmp_path: Path) -> None:
    text = SMALL + "[axes]\nsampler.steps = [4, 9]\n[axes.way]\nsde = { sampler.kind = 'sde' }\n"
    samplers = [cell.recipe.sampler for cell in grid(tmp_path, text).cells.values()]
    assert [(sampler.kind, sampler.steps) for sampler in samplers] == [("sde", 4), ("sde", 4), ("sde", 9), ("sde", 9)]


def test_a_component_that_is_put_keeps_nothing_of_the_one_before(tmp_path: Path) -> None:
    one = SMALL + "sampler.w = {kind = 'sigma', scale = 3.0}\n[axes]\nsampler.w = [{kind = 'sigma'}]"
    (cell,) = {cell.recipe.sampler.w for cell in grid(tmp_path, one).cells.values()}
    assert cell.fields.model_dump() == {"scale": 1.0}


def test_each_network_is_trained_once_for_all_its_cells(tmp_path: Path) -> None:
    both = grid(tmp_path, SMALL + AXES)
    assert len(both.points) == 8
    assert len(both.cells) == 8
    assert len(both.networks) == 4
    assert {model.recipe.seed for model in both.networks.values()} == {3, 5}
    fewer = grid(tmp_path, SMALL + "sampler.steps = 9\nguidance.scale = 4.0")
    assert fewer.networks.keys() < both.networks.keys()
    assert not fewer.cells.keys() & both.cells.keys()
    trained = [model.recipe.model_dump() for model in fewer.networks.values()]
    assert trained == [both.networks[key].recipe.model_dump() for key in fewer.networks]


def test_equivalent_settings_are_the_same_network(tmp_path: Path) -> None:
    auto = grid(tmp_path, SMALL)
    spelled = grid(tmp_path, SMALL + "sampler.times = 'power'\nsampler.interval = [0.0, 1.0]\ntrain.interval = [0, 1]")
    assert auto.cells.keys() == spelled.cells.keys()
    twice = grid(tmp_path, SMALL + "[axes]\nsampler.times = ['auto', 'power', 'uniform']")
    assert (len(twice.points), len(twice.cells), len(twice.networks)) == (6, 4, 2)
    more = SMALL + "ema.more = [0.5]\n"
    usual, other = grid(tmp_path, more), grid(tmp_path, more + "[measure]\naverage = 'ema-0.5'")
    assert other.networks.keys() == usual.networks.keys()
    assert not other.cells.keys() & usual.cells.keys()


def test_samples_have_seeds_that_no_training_has(tmp_path: Path) -> None:
    found = grid(tmp_path, SMALL + AXES)
    draws = {cell.recipe.seed: range(cell.sampling_seed, cell.sampling_seed + 2) for cell in found.cells.values()}
    seeds = [seed for some in draws.values() for seed in some]
    assert len(set(seeds)) == 4
    assert not {3, 5} & set(seeds)


PUBLISHED = "\n[published]\nsource = 'a table'\nnumber = 'n'\n[published.rows]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = ", "is not TOML"),
        ("base = 'digits'", "seeds is missing"),
        ("base = 'digits'\nseeds = []", "seeds: should be different whole numbers from 0 to 999999, at least one"),
        ("base = 'digits'\nseeds = [1, 1]", "seeds: should be different whole numbers from 0 to 999999, at least one"),
        (
            "base = 'digits'\nseeds = [1000000]",
            "seeds: should be different whole numbers from 0 to 999999, at least one",
        ),
        ("base = 'digits'\nsedes = [1]\nseeds = [1]", "sedes: unknown key .did you mean 'seeds'"),
        (SMALL + "[measure]\nnumber = []", "measure.number: unknown key .did you mean 'numbers'"),
        (SMALL + PUBLISHED + "'a' = 1", "published.rows: no row 'a'; rows are called as ''"),
        (
            SMALL + "[axes]\nsampler.steps = [2]\npath = ['vp']" + PUBLISHED + "'2, pv' = 1",
            "published.rows: no row '2, pv' .did you mean '2, vp'",
        ),
        (SMALL + "[published]\nsource = ''\nrows = {}", "published.number is missing"),
        (SMALL + "[measure]\nnumbers = ['m']" + PUBLISHED, "published.number: 'n' is not in the tables; known: m"),
        (
            SMALL + "[published]\nsource = ''\nnumber = ''\nrows = {}\nrow = 1",
            "published.row: unknown key .did you mean 'rows'",
        ),
        ("base = 'digit'\nseeds = [1]", "no preset 'digit' .did you mean 'digits'"),
        (SMALL + "sampler.stesp = 1", "set: sampler.stesp: unknown key .did you mean 'steps'"),
        (SMALL + "[axes]\nsampler.stesp = [1]", "study.toml: 1: sampler.stesp: unknown key .did you mean 'steps'"),
        (SMALL + "[axes]\nsampler.steps = [1, 1]", "axes.sampler.steps: 1 is given twice"),
        (SMALL + "[axes]\nsampler.steps = 1", "axes.sampler.steps: a list of values is wanted, got 1"),
        (SMALL + "[axes.path]\nours.kind = 'vp'", "axes.path.ours.kind: a list of values is wanted"),
        (SMALL + "[axes.pat]\nkind = ['vp']", "axes.pat.kind: a table of settings is wanted, .*did you mean 'path'"),
        (SMALL + "[axes.calls]\na = {}", "axes.calls: rows have a column of that name"),
        (SMALL + "[axes.a]", "axes.a: there are no variants"),
        (SMALL + "[axes]\nseed = [1, 2]", "seed=1: the seeds of a study"),
        (SMALL + "[axes.first]\na = { seed = 1 }", "seed=1: the seeds of a study"),
        (SMALL + "seed = 1", "seed=1: the seeds of a study"),
        (SMALL + "[measure]\naverage = 'width-0.1'", "measure.average: there will be no 'width-0.1'; known: ema"),
        (
            SMALL + "[axes]\npath = ['linear', 'lines']",
            "study.toml: lines: path: no path 'lines' .did you mean 'linear'",
        ),
        (
            SMALL + "[axes]\nsampler.kind = ['ode', 'sde']\ntrain.coupling = [{kind = 'optimal_transport', block = 8}]",
            "sde, optimal_transport block 8: train.coupling must be independent",
        ),
    ],
)
def test_errors_are_one_line_before_anything_is_computed(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        grid(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 1
    code, output = sitkit("study", tmp_path / "study.toml", "--out", tmp_path / "out")
    assert code == 2
    assert str(caught.value) in output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent.parent / "docs" / "results").glob("*.toml")), ids=lambda file: file.stem
)
def test_the_studies_of_the_docs_are_studies(file: Path) -> None:
    found = grid_of(read_study(file))
    assert len({place.seed for place in found.points}) == 3
