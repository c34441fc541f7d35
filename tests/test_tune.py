"""`sitkit tune`: what is chosen, written and printed, and the sampler file that it writes."""

import json
from pathlib import Path

import pytest

from sitkit.recipes.evaluation.evaluate import evaluate
from studies import SMALL, sitkit, write

OVER = ["--over", "sampler.w=ode|sigma|{kind = 'kl', scale = 0.5}|constant,guidance.scale=1.0|2.0"]
OVER += ["--set", "evaluation.draws=1"]
CALLS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    text = SMALL.replace("seeds = [3, 5]", "").replace('base = "digits"', "").replace("[set]", 'data = "digits"')
    file = write(folder / "small.toml", "backbone.kind = 'sit'\nbackbone.patch_size = 2\n" + text.strip())
    settings = ["optimizer.lr=1e-2", "guidance.scale=2.0", "checkpoint.every=10"]
    code, said = sitkit("train", file, "--out", folder / "run", *(word for one in settings for word in ("--set", one)))
    assert code == 0, said
    (folder / "run" / "metrics.jsonl").unlink()  # or each report would take a while to draw the loss
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(run: Path) -> Path:
    before = sorted(run.rglob("*"))
    code, said = sitkit("tune", run, *OVER, "--calls", CALLS, "--out", run.parent / "tuned")
    assert code == 0, said
    assert "draw by draw" in said or "the best that was found" in said
    assert sorted(run.rglob("*")) == before
    return run.parent / "tuned"


def test_the_chosen_sampler_is_the_best_and_reported_on_other_seeds(tuned: Path) -> None:
    table = json.loads((tuned / "tune.json").read_text())
    seeds, name = table["seeds"], table["number"]["name"]
    assert seeds == {"choosing": [0], "reporting": [1, 2, 3]}
    assert len(table["candidates"]) == 8
    assert len({one["what"] for one in table["candidates"]}) == 8
    assert all(one["seeds"] == [0] and one["calls"] == CALLS for one in table["candidates"])
    real = table["number"]["real"]
    scores = [sum(abs(x - real) for x in one["numbers"][name]["values"]) for one in table["candidates"]]
    best = table["candidates"][scores.index(min(scores))]
    line = table["lines"].get("chosen", table["lines"]["the run's own"])
    assert [one["allowed"] for one in line] == [1, 2, 4]
    for other in table["lines"].values():
        assert all(one["seeds"] == [1, 2, 3] and one["calls"] <= one["allowed"] for one in other)
        assert all(one["numbers"][name]["spread"] > 0 for one in other)
    at = line[1]
    assert at["key"] == table["chosen"]
    assert (at["sampler"]["kind"], at["sampler"]["w"], at["guidance"]) == (
        best["sampler"]["kind"],
        best["sampler"]["w"],
        best["guidance"],
    )


def test_gain_and_pareto_front_are_of_the_reported_metrics(tuned: Path) -> None:
    table = json.loads((tuned / "tune.json").read_text())
    name, real = table["number"]["name"], table["number"]["real"]
    away = {
        which: {one["allowed"]: [abs(x - real) for x in one["numbers"][name]["values"]] for one in line}
        for which, line in table["lines"].items()
    }
    assert [*table["lines"]][:2] == ["chosen", "the run's own"]
    assert len(table["lines"]) == 3
    gains = [own - chosen for own, chosen in zip(away["the run's own"][CALLS], away["chosen"][CALLS], strict=True)]
    assert table["gain"]["mean"] == pytest.approx(sum(gains) / 3)
    assert table["gain"]["beyond"] == (abs(table["gain"]["mean"]) > 2 * table["gain"]["standard_error"])
    trials = {
        one["key"]: (one["calls"], sum(away[which][one["allowed"]]))
        for which, line in table["lines"].items()
        for one in line
    }
    undominated = {
        (calls, distance)
        for calls, distance in trials.values()
        if not any(c <= calls and d <= distance and (c, d) != (calls, distance) for c, d in trials.values())
    }
    assert [trials[key] for key in table["pareto"]] == sorted(undominated)


def test_each_w_stands_beside_its_bound(tuned: Path) -> None:
    table = json.loads((tuned / "tune.json").read_text())["diffusions"]
    assert [row["w"] for row in table["rows"]] == ["ode", "sigma scale 1", "kl scale 0.5", "constant c 1"]
    ode, sigma, kl, constant = (row["bound"] for row in table["rows"])
    assert ode is None
    assert kl < sigma < constant
    assert table["times"] == pytest.approx([0.02, 0.98])
    assert all(len(row["distances"]) == 3 for row in table["rows"])
    assert -1 <= table["rank_correlation"] <= 1


def test_the_page_and_plots_are_complete(tuned: Path) -> None:
    page = (tuned / "tune.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page
    for name in ("pareto.png", "bounds.png"):
        assert (tuned / name).read_bytes().startswith(b"\x89PNG")
        assert (tuned / name).stat().st_size < 300_000
    assert not (tuned / "work").exists()


def test_the_chosen_sampler_gives_the_reported_metrics_and_samples(run: Path, tuned: Path, tmp_path: Path) -> None:
    table = json.loads((tuned / "tune.json").read_text())
    line = table["lines"].get("chosen", table["lines"]["the run's own"])[1]
    words_ = ["--sampler", tuned / "sampler.toml", "--seed", 1, "--set", "evaluation.draws=3"]
    code, said = sitkit("evaluate", run, "--out", tmp_path, *words_)
    assert code == 0, said
    numbers = json.loads((tmp_path / "report.json").read_text())["numbers"]
    for name, number in line["numbers"].items():
        assert numbers[name]["values"] == number["values"]
    for name, sampler in (("file", ["--sampler", tuned / "sampler.toml"]), ("own", [])):
        code, said = sitkit("sample", run, "--num", 4, "--out", tmp_path / f"{name}.npz", *sampler)
        assert code == 0, said
        assert f"{CALLS if sampler else 50} NFE" in said
    over = ["--set", "sampler.steps=3"]
    code, said = sitkit(
        "sample", run, "--num", 4, "--out", tmp_path / "x.npz", "--sampler", tuned / "sampler.toml", *over
    )
    assert "3 NFE" in said


@pytest.mark.slow
def test_an_interrupted_search_resumes_and_finds_the_same(
    run: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    (out / "candidates").mkdir(parents=True)
    stored = sorted((tuned / "candidates").iterdir())
    for file in stored[2:]:
        (out / "candidates" / file.name).write_bytes(file.read_bytes())
    measured: list[int] = []

    def once(*arguments: object, **words: object) -> object:
        if measured:
            raise KeyboardInterrupt
        measured.append(1)
        return evaluate(*arguments, **words)  # type: ignore[arg-type]

    monkeypatch.setattr("sitkit.recipes.study.parts.evaluate", once)
    code, said = sitkit("tune", run, *OVER, "--calls", CALLS, "--out", out)
    assert code == 130, said
    assert len([*(out / "candidates").iterdir()]) == len(stored) - 1
    measured.clear()
    code, said = sitkit("tune", run, *OVER, "--calls", CALLS, "--out", out)
    assert code == 0, said
    assert len(measured) == 1
    one, other = (json.loads((folder / "tune.json").read_text()) for folder in (tuned, out))
    for key in ("chosen", "pareto", "gain", "diffusions", "failed"):
        assert one[key] == other[key]
    assert [c["numbers"] for c in one["candidates"]] == [c["numbers"] for c in other["candidates"]]


@pytest.mark.slow
def test_a_candidate_that_fails_is_named_and_a_w_is_measured_without_guidance(run: Path, tmp_path: Path) -> None:
    over = ["--over", "sampler.solver=auto|rk4,sampler.w=ode|sigma", "--set", "evaluation.draws=1"]
    code, said = sitkit("tune", run, *over, "--calls", 1, "--out", tmp_path)
    assert code == 0, said
    assert "failed: sampler.solver rk4, sampler.w ode: one step makes 4 NFE, and 1 are allowed" in said
    assert "too few to be ranked" in said
    trials = [json.loads(file.read_text()) for file in (tmp_path / "candidates").iterdir()]
    unguided = [(one["sampler"]["kind"], one["seeds"]) for one in trials if one["guidance"]["scale"] == 1]
    assert sorted(unguided) == [("ode", [1, 2, 3]), ("sde", [1, 2, 3])]


@pytest.mark.parametrize(
    ("words_", "said"),
    [
        (["--over", "train.lr"], "only keys of sampler and guidance can be varied"),
        (["--over", "sampler.steps=1|2"], "they follow from --calls"),
        (["--over", "sampler.tmies"], "did you mean 'times'?"),
        (["--over", "sampler.interval"], "name its values"),
        (["--over", "sampler.w=sgima"], "did you mean 'sigma'?"),
        (["--over", "sampler.w,sampler.w"], "given twice"),
        (["--over", ","], "names what to vary"),
        (["--over", "sampler.solver=rk4", "--set", "sampler.solver=rk4"], "one step makes 4 NFE, and 2 are allowed"),
        (["--over", "guidance.scale=x"], "should be a valid number"),
        (["--over", "guidance.scale", "--number", "precison"], "did you mean 'precision'?"),
    ],
)
def test_bad_input_is_one_line(run: Path, tmp_path: Path, words_: list[str], said: str) -> None:
    code, line = sitkit("tune", run, *words_, "--calls", 2, "--out", tmp_path)
    (line,) = [one for one in line.splitlines() if one.startswith("sitkit: ")]
    assert (code, said in line) == (2, True), line


FILES = [
    ("[sampler]\nstepz = 3", "sampler.stepz: unknown key (did you mean 'steps'?)"),
    ("[sampelr]\nsteps = 3", "sampelr: unknown key (did you mean 'sampler'?)"),
    ("[sampler]\nw = {kind = 'sigma', c = 1.0}", "sampler.w.c: unknown key"),
    ("[sampler]\nkind = 'sde'\nlast = 'none'\nsolver = 'heun'", "does not fit kind"),
    ("[train]\nsteps = 3", "train: unknown key"),
    ("sampler = 3", "should be a table"),
    ("[sampler", "is not TOML"),
]


@pytest.mark.parametrize(("text", "said"), FILES)
def test_a_file_of_something_else_is_refused_in_one_line(run: Path, tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path / "sampler.toml", text)
    code, line = sitkit("sample", run, "--out", tmp_path / "x.png", "--sampler", file)
    assert (code, line.count("\n"), said in line) == (2, 1, True), line
    assert str(file) in line
    missing = sitkit("sample", run, "--out", tmp_path / "x.png", "--sampler", tmp_path / "no")
    assert (missing[0], "cannot be read" in missing[1]) == (2, True)


def test_a_sampler_for_finished_samples_is_refused(run: Path, tmp_path: Path) -> None:
    assert sitkit("sample", run, "--num", 12, "--out", tmp_path / "drawn", "--set", "sampler.steps=1")[0] == 0
    file = write(tmp_path / "sampler.toml", "[sampler]\nsteps = 3")
    code, said = sitkit("evaluate", tmp_path / "drawn", "--sampler", file)
    assert (code, "already have a sampler" in said) == (2, True)
