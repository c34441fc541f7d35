"""HTML pages escape what users name: titles, classes, variants, commands."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sitkit.recipes.evaluation import html_report
from sitkit.recipes.evaluation.html_report import ReportContent
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.study import tables
from sitkit.recipes.study.parts import SamplerEvaluation
from sitkit.recipes.study.results import ResultRow, StudyResults
from sitkit.recipes.study.statistics import SeedValues
from sitkit.recipes.study.study_file import read_study
from sitkit.recipes.support.html_pages import render
from sitkit.recipes.tune import report
from sitkit.recipes.tune.benchmark import SamplerMeasurement, TargetMetric
from sitkit.recipes.tune.sampler_search import OWN, SearchResult, SearchTask
from studies import SMALL, write

EVIL, ESCAPED = "<script>alert('&')</script>", "&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"


def check(page: str, least: int) -> None:
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert page.count(ESCAPED) >= least


def test_the_page_of_a_study_escapes_its_names(tmp_path: Path) -> None:
    text = f'title = "{EVIL}"\n{SMALL}[axes."{EVIL}"]\n"{EVIL}" = {{}}\n'
    study = read_study(write(tmp_path / "study.toml", text))
    row = ResultRow({EVIL: EVIL}, {EVIL: EVIL}, 2, {EVIL: SeedValues({3: 1.0, 5: 2.0}, 0.5)})
    record = {
        "hours": {"training": 1.25, "measuring": 0.01},
        "machine": {"processor": EVIL, "cores": 2, "gpus": []},
        "versions": {"torch": "2"},
        "command": EVIL,
        "failed": [{"key": "k", "what": EVIL, "why": EVIL}],
    }
    page = tables.page(StudyResults(study, (row,), (EVIL,)), record, {EVIL: b"png"})
    check(page, 10)
    assert "<b>Bold</b>" in page
    assert "<b>1.50 ± 0.50</b>" in page
    assert "1.25 hours of training and 36 seconds of evaluation" in page
    assert "`" not in page


def test_the_page_of_a_sampler_search_escapes_its_names() -> None:
    number = {"mean": 1.0, "spread": None, "values": [1.0], "real": 0.5}
    recipe = read_recipe("digits")
    one = SamplerMeasurement(recipe, "key", (0,), SamplerEvaluation({EVIL: number}, 8, 8, 1.0))
    task = SearchTask(recipe, (), 8, 0, None)
    result = SearchResult(task, TargetMetric(EVIL, 0.5), (one,), {OWN: {8: one}}, None, None, {EVIL: EVIL})
    check(report.page(result, {report.PARETO: b"png"}, EVIL, EVIL), 6)


def test_the_report_of_an_evaluation_escapes_its_names() -> None:
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    samples: Any = SimpleNamespace(
        path=Path(EVIL.replace("/", "")), labels=None, classes=(EVIL,), read=lambda some: pixels[some]
    )
    samples = type("Samples", (SimpleNamespace,), {"__len__": lambda self: 4})(**vars(samples))
    number = {"mean": 1.0, "spread": None, "values": [1.0], "real": 0.5, "bias": None, "meaning": EVIL}
    manifest = {"draws": 1, "samples": 4, "network_calls": {EVIL: 2}, "reference": {}, "features": {"size": 2}}
    classes = [{"class": EVIL, "samples": 1, "reference": 2, "wanted": None, "distance": 0.5, "real": None}]
    table = {"numbers": {EVIL: number}, "classes": classes, "manifest": manifest}
    reference: Any = SimpleNamespace(images=None, about={"source": EVIL})
    check(html_report.page(ReportContent(table, {"": samples}, None, reference, None, None)), 5)  # type: ignore[arg-type]


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(Exception, match="'title' is undefined"):
        render("support/templates/base.html")
