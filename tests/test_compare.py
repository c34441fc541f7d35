"""`sitkit compare`: two reports side by side."""

import json
from pathlib import Path
from typing import Any

import pytest

from measuring import refused, sitkit
from sitkit.recipes.evaluation.text_table import table
from sitkit.recipes.support.json_toml import differences, flatten


def number(*values: float, bias: float | None = None, real: float | None = None, **others: Any) -> dict[str, Any]:
    mean = sum(values) / len(values)
    spread = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
    said = {"mean": mean, "spread": spread, "values": [*values], "bias": bias, "real": real, "meaning": "a number"}
    return said | others


def report(folder: Path, numbers: dict[str, Any], **manifest: Any) -> Path:
    folder.mkdir()
    settings = {"recipe": {"sampler": {"steps": 3, "w": {"kind": "sigma"}}}, "seed": 0, "made_by": {"torch": "2"}}
    (folder / "report.json").write_text(
        json.dumps({"numbers": numbers, "classes": [], "manifest": settings | manifest})
    )
    return folder


def compared(one: Path, other: Path) -> list[list[str]]:
    code, said = sitkit("compare", one, other)
    assert code == 0, said
    return [line.split() for line in said.splitlines()]


def test_equal_reports_differ_in_nothing(tmp_path: Path) -> None:
    one = report(tmp_path / "a", {"FID": number(2.5)})
    lines = compared(one, one / "report.json")
    assert lines[1] == ["FID", "2.5", "2.5", "+0"]
    assert lines[-1] == ["0", "settings", "differ"]


def test_metrics_are_side_by_side_and_differing_settings_below(tmp_path: Path) -> None:
    recipe = {"sampler": {"steps": 250, "w": {"kind": "constant", "c": 1.0}}}
    one = report(tmp_path / "a", {"FID": number(2.5, 2.7), "KID": number(0.5), "sFID": number(1.0, 3.0)})
    other = report(
        tmp_path / "b",
        {"FID": number(2.0, 2.2), "sFID": number(1.5, 2.9), "recall": number(0.5)},
        recipe=recipe,
        made_by={"torch": "3"},
        extra=1,
    )
    lines = compared(one, other)
    assert lines[1:5] == [
        ["FID", "2.6", "+-", "0.14", "2.1", "+-", "0.14", "-0.5", "*"],  # 0.5 is more than 2 standard errors of 0.14
        ["KID", "0.5"],
        ["sFID", "2", "+-", "1.4", "2.2", "+-", "0.99", "+0.2"],
        ["recall", "0.5"],
    ]
    assert lines[6] == ["5", "settings", "differ:"]
    assert lines[7:] == [
        ["extra", "null", "1"],
        ["recipe.sampler.steps", "3", "250"],
        ["recipe.sampler.w.c", "null", "1.0"],
        ["recipe.sampler.w.kind", '"sigma"', '"constant"'],
        ["made_by.torch", '"2"', '"3"'],  # last, because metrics depend on it only by rounding
    ]


def test_a_difference_of_two_standard_errors_is_not_marked(tmp_path: Path) -> None:
    one = report(tmp_path / "a", {"FID": number(0.0, 2.0), "alone": number(0.0)})  # standard errors of 1
    for name, shift, marked in (("b", 2.8, False), ("c", 2.9, True)):
        lines = compared(one, report(tmp_path / name, {"FID": number(shift, 2 + shift), "alone": number(9.0)}))
        assert (lines[1][-1] == "*") == marked
        assert lines[2][-1] == "+9"  # no standard error of one draw each


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no report {file}: `sitkit evaluate` writes one"),
        ("{", "{file} is not a report ("),
        ("[]", "{file} is not a report ("),
        ('{"numbers": {}}', "{file} is not a report ("),
        (
            '{"numbers": [], "manifest": {}}',
            "{file} is not a report (numbers and manifest are not tables): run `sitkit",
        ),
    ],
)
def test_a_report_that_is_none_is_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    one = report(tmp_path / "a", {"FID": number(2.5)})
    file = tmp_path / "b/report.json"
    file.parent.mkdir()
    if text is not None:
        file.write_text(text)
    for words in ((one, file.parent), (file.parent, one), (one, file)):
        assert said.format(file=file) in refused("compare", *words)


@pytest.mark.parametrize("broken", [{"FID": 3}, {"FID": {"mean": 1.0}}, {"FID": number(1.0) | {"mean": "much"}}])
def test_missing_metrics_are_one_line(tmp_path: Path, broken: dict[str, Any]) -> None:
    one, other = report(tmp_path / "a", {"FID": number(2.5)}), report(tmp_path / "b", broken)
    assert f"{other / 'report.json'} is not a report (" in refused("compare", one, other)


def test_tables_are_compared_key_by_key() -> None:
    one, other = {"a": {"b": 1, "c": [1, 2]}, "d": None}, {"a": {"b": 1, "c": [1]}, "e": {"f": 0}}
    assert flatten(one) == {"a.b": 1, "a.c": [1, 2], "d": None}
    assert differences(one, other) == {"a.c": ([1, 2], [1]), "e.f": (None, 0)}


def test_a_table_warns_of_too_few_samples() -> None:
    numbers = {
        "FID": number(10.0, bias=0.11, real=1.0, **{"without guidance": number(20.0)}),
        "sFID": number(10.0, bias=0.09),
    }
    manifest = {"samples": 500, "features": {"size": 64}, "reference": {"count": 64}}
    lines = table({"numbers": numbers, "manifest": manifest}).splitlines()
    assert lines[0].split() == ["samples", "without", "guidance", "real"]
    assert lines[1].split() == ["FID", "10", "20", "1"]
    assert lines[2].split() == ["sFID", "10"]
    bias = "FID: about 0.11 of it is due to the finite number of samples (500)"
    assert lines[3:] == [bias]
    few = {"numbers": numbers, "manifest": manifest | {"reference": {"count": 63}}}
    told = "the reference has 63 images, fewer than the 64 features: real images, too, are far from it"
    assert table(few).splitlines()[3:] == [bias, told]
    assert table({"numbers": numbers, "manifest": manifest | {"reference": {}}}).splitlines()[3:] == [bias]
    same = {"FID": number(1.4e-13, bias=60.0)}
    lines = table({"numbers": same, "manifest": manifest}).splitlines()
    assert lines[2:] == ["FID: about all of it is due to the finite number of samples (500)"]


def test_columns_of_a_table_stay_apart() -> None:
    wide = {"mean": -0.0008496123, "spread": 0.0001234567, "bias": None}
    number = wide | {"without guidance": wide, "real": -0.0001234567}
    manifest = {"samples": 10, "reference": {}, "features": {"size": 1}}
    longest = "share nearer to training than held-out"
    head, row = table({"numbers": {longest: number}, "manifest": manifest}).splitlines()
    assert len(head) == len(row)
    assert len([cell for cell in row.split("  ") if cell]) == 4
