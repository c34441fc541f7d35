"""Results over seeds: means, standard errors, differences, and their tables."""

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import t as student

from sitkit.recipes.study import plots as drawing
from sitkit.recipes.study.plots import plots
from sitkit.recipes.study.published import compare
from sitkit.recipes.study.results import ResultRow, StudyResults
from sitkit.recipes.study.statistics import Estimate, SeedValues, difference, false_rate
from sitkit.recipes.study.study_file import Study, read_study
from sitkit.recipes.study.tables import explanation, tables
from sitkit.recipes.support.errors import UserError
from studies import SMALL, write


def test_the_error_of_a_mean_is_that_of_a_textbook() -> None:
    values = torch.tensor([1.0, 4.0, 2.5, -1.0], dtype=torch.float64)
    mean = Estimate.of(dict(enumerate(values.tolist())))
    assert mean.value == pytest.approx(float(values.mean()))
    assert mean.error == pytest.approx(float(values.std() / 2))
    assert Estimate.of({7: 3.0}) == Estimate(3.0, None)
    assert not Estimate.of({7: 3.0}).significant


def test_seeds_are_compared_with_themselves() -> None:
    one = {0: 10.0, 1: 20.0, 2: 31.0}
    apart = difference({0: 9.0, 1: 19.0, 2: 30.1, 3: 500.0}, one)
    assert apart is not None
    assert apart.value == pytest.approx(-2.9 / 3)
    assert apart.significant
    assert not difference({0: 12.0, 1: 19.0, 2: 30.0}, one).significant  # type: ignore[union-attr]
    assert difference({5: 1.0}, one) is None


def test_a_difference_must_lie_beyond_two_errors() -> None:
    assert not Estimate(2.0, 1.0).significant
    assert Estimate(-2.01, 1.0).significant
    assert not Estimate(0.0, 0.0).significant


@pytest.mark.parametrize("seeds", [2, 3, 5, 40])
def test_the_stated_rate_of_false_differences_is_true(seeds: int) -> None:
    assert false_rate(seeds) == pytest.approx(2 * student.sf(2.0, seeds - 1), abs=1e-6)
    draws = torch.randn(20_000, seeds, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    called = sum(Estimate.of(dict(enumerate(row))).significant for row in draws[:4000].tolist()) / 4000
    assert called == pytest.approx(false_rate(seeds), abs=0.025)
    assert false_rate(1) == 0


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (Estimate(0.123456, 0.0123), "0.123 ± 0.012"),
        (Estimate(1234.56, 98.7), "1235 ± 99"),
        (Estimate(12.5519, 0.5), "12.55 ± 0.50"),
        (Estimate(0.98765, None), "0.9877"),
        (Estimate(0.5, 0.0), "0.5 ± 0"),
    ],
)
def test_means_have_the_digits_that_their_errors_allow(mean: Estimate, said: str) -> None:
    assert str(mean) == said


def found(study: Study, real: float | None, values: list[list[float]]) -> StudyResults:
    """Return results of the metric "n" for the rows of a study in order, by seed."""
    names = [(f"{one}", f"{other}") for one in (1, 2) for other in ("a", "b")]
    rows = tuple(
        ResultRow({"sampler.steps": step, "way": way}, {"sampler.steps": int(step), "way": way}, 7, _entry(real, some))
        for (step, way), some in zip(names, values, strict=True)
    )
    return StudyResults(study, rows, ("n",))


def _entry(real: float | None, values: list[float]) -> dict[str, SeedValues]:
    return {"n": SeedValues(dict(enumerate(values)), real)} if values else {}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    text = SMALL.replace("[3, 5]", "[0, 1, 2]") + "[axes]\nsampler.steps = [1, 2]\n[axes.way]\na = {}\nb = {}\n"
    return read_study(write(tmp_path / "study.toml", text))


def test_the_best_is_nearest_to_real_images_and_ties_are_marked(study: Study) -> None:
    results = found(study, 0.5, [[0.6, 0.7, 0.8], [0.65, 0.62, 0.8], [0.4, 0.3, 0.1], []])
    assert results.best["n"] is results.rows[1]
    crossed, whole = tables(results)
    assert crossed.head == ("sampler.steps", "a", "b")
    assert crossed.rows == (("1", "0.700 ± 0.058 ≈", "**0.690 ± 0.056**"), ("2", "0.267 ± 0.088 ≈", "–"))
    assert whole.head == ("sampler.steps", "way", "NFE", "n")
    assert whole.rows[0] == ("1", "a", "7", "0.700 ± 0.058 ≈")
    apart = found(study, 0.5, [[0.6, 0.7, 0.8], [0.5, 0.6, 0.7], [0.4, 0.3, 0.1], []])
    assert tables(apart)[0].rows[0] == ("1", "0.700 ± 0.058", "**0.600 ± 0.058**")
    text = explanation(results)
    assert "with 3 seeds, one in 5 pairs of rows with equal expected values would be called different" in text


def test_without_real_images_or_seeds_nothing_is_called_best(study: Study, tmp_path: Path) -> None:
    unknown = found(study, None, [[1.0, 2.0], [0.0, 1.0], [3.0, 4.0], []])
    assert not unknown.best
    assert not any("*" in entry or "≈" in entry for table in tables(unknown) for row in table.rows for entry in row)
    single = read_study(write(tmp_path / "single.toml", SMALL.replace("[3, 5]", "[0]")))
    alone = found(single, 0.5, [[1.0], [0.6], [3.0], []])
    assert not any("≈" in entry for table in tables(alone) for row in table.rows for entry in row)
    assert "There is one seed" in explanation(alone)


def test_the_best_has_as_many_seeds_as_any(study: Study) -> None:
    results = found(study, 0.5, [[0.5], [0.6, 0.7, 0.8], [0.4, 0.3, 0.1], []])
    assert results.best["n"] is results.rows[1]


def test_plots_show_means_errors_and_seeds(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return b""

    monkeypatch.setattr(drawing, "figure_png", keep)
    results = found(study, 0.5, [[0.6, 0.7, 0.8], [0.65, 0.62, 0.8], [0.4, 0.3, 0.1], []])
    plots(results)
    (axes,) = figures[0].axes
    lines = {str(one.get_label()): one for one in axes.containers}
    for way, rows in {"a": results.rows[::2], "b": results.rows[1:2]}.items():
        data, _, (bars,) = lines[way].lines  # type: ignore[attr-defined]
        means = [row.entries["n"].mean for row in rows]
        assert [*data.get_ydata()] == [mean.value for mean in means]
        for mean, segment in zip(means, bars.get_segments(), strict=True):
            assert segment[1, 1] - segment[0, 1] == pytest.approx(2 * (mean.error or 0))


def test_plots_show_the_measured_cells(study: Study) -> None:
    results = found(study, 0.5, [[0.6, 0.7, 0.8], [0.65, 0.62, 0.8], [0.4, 0.3, 0.1], []])
    assert [png[:4] for png in plots(results).values()] == [b"\x89PNG"]
    assert plots(found(study, 0.5, [[], [], [], []])) == {}


ROWS = """
[published]
source = "a table"
number = "n"

[published.rows]
"1, a" = 10.0
"1, b" = 20.0
"2, a" = 30.0
"2, b" = 30.0
"""


def test_published_orders_are_compared_with_those_of_the_seeds(tmp_path: Path) -> None:
    """Pairs that differ on one axis: one as published, one reversed, one undecided; equal values are no pair."""
    text = SMALL + "[axes]\nsampler.steps = [1, 2]\n[axes.way]\na = {}\nb = { guidance.scale = 3.0 }" + ROWS
    study = read_study(write(tmp_path / "study.toml", text))
    results = found(study, 0.0, [[5.0, 5.1, 5.2], [6.0, 6.2, 6.1], [4.0, 4.1, 4.2], [5.0, 7.0, 6.4]])
    comparison = compare(results)
    assert comparison is not None
    said = {
        (pair.axis, *pair.one.names.values(), *pair.other.names.values()): pair.verdict for pair in comparison.pairs
    }
    assert said == {
        ("way", "1", "a", "1", "b"): "as published",
        ("sampler.steps", "1", "a", "2", "a"): "the other way",
        ("sampler.steps", "1", "b", "2", "b"): "not told apart",
    }
    pair = comparison.describe()["pairs"][0]
    assert (pair["one"], pair["other"], pair["published"]) == ("1, a", "1, b", 10.0)
    assert pair["mean"] == pytest.approx(1.0)
    *_, rows, counts, told = tables(results)
    assert "a table" in rows.caption
    assert ("2, a", "30", "4.100 ± 0.058") in rows.rows
    assert set(counts.rows) == {("way", "0", "1", "0", "1"), ("sampler.steps", "1", "0", "1", "2")}
    assert [*plots(results)] == ["n", "Published and here"]
    assert [line[:3] for line in told.rows] == [("the other way", "2, a", "1, a"), ("as published", "1, b", "1, a")]


def test_unmeasured_rows_are_not_compared(tmp_path: Path) -> None:
    text = SMALL + "[axes]\nsampler.steps = [1, 2]\n[axes.way]\na = {}\nb = { guidance.scale = 3.0 }" + ROWS
    study = read_study(write(tmp_path / "study.toml", text))
    comparison = compare(found(study, 0.0, [[5.0], [], [4.0], []]))
    assert comparison is not None
    assert [row.names["way"] for row in comparison.rows] == ["a", "a"]
    assert [pair.verdict for pair in comparison.pairs] == ["not told apart"]  # one seed has no standard error
    bare = read_study(write(tmp_path / "bare.toml", text.partition("[published]")[0]))
    assert compare(found(bare, 0.0, [[1.0], [], [], []])) is None


def test_published_values_must_be_of_a_metric_in_the_table(tmp_path: Path) -> None:
    text = SMALL + "[axes]\nsampler.steps = [1, 2]\n[axes.way]\na = {}\nb = { guidance.scale = 3.0 }" + ROWS
    study = read_study(write(tmp_path / "study.toml", text.replace('number = "n"', 'number = "m"')))
    with pytest.raises(UserError, match=r"published.number: 'm' is not in the tables.*known: n"):
        compare(found(study, 0.0, 4 * [[1.0]]))
