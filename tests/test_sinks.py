"""Sinks of metrics: they show each recorded point once, after any number of interruptions."""

import json
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.experiment.recipe import Recipe
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.training.sinks import Sink, TensorBoard, flatten, open_sinks


def recipe(*sinks: str) -> Recipe:
    return read_recipe("digits", [f"log.sinks={json.dumps(sinks)}"])


def record(step: int) -> dict[str, Any]:
    by_t = [1.0 / step, None, float("nan")]
    return {"step": step, "loss": 1 / step, "images": 8 * step, "loss_by_t": by_t, "finite": True, "device": "cpu"}


def picture(folder: Path) -> Path:
    Image.new("RGB", (7, 5), (10, 20, 30)).save(folder / "grid.png")
    return folder / "grid.png"


def events(folder: Path) -> Any:
    accumulators: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    accumulator = accumulators.EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return accumulator


def points(folder: Path, name: str) -> list[tuple[int, Any]]:
    return [(event.step, event.value) for event in events(folder).Scalars(name)]


def test_records_become_scalars_by_name() -> None:
    assert flatten(record(4)) == {"loss": 0.25, "images": 32.0, "loss_by_t/00": 0.25, "finite": 1.0}


def test_no_sink_is_opened_that_was_not_asked_for(tmp_path: Path) -> None:
    assert open_sinks(recipe(), tmp_path, 0) == []
    assert not [*tmp_path.iterdir()]


def test_events_read_back_are_the_records(tmp_path: Path) -> None:
    (sink,) = open_sinks(recipe("tensorboard"), tmp_path, 0)
    for step in (1, 10, 20):
        sink.write(record(step))
        assert points(tmp_path, "loss_by_t/00")[-1][0] == step  # at once: a crash may come
    sink.image("samples", picture(tmp_path), 20)
    sink.close()
    read_back = events(tmp_path)
    assert set(read_back.Tags()["scalars"]) == {"loss", "images", "loss_by_t/00", "finite"}
    assert points(tmp_path, "loss") == [(step, pytest.approx(1 / step)) for step in (1, 10, 20)]
    assert points(tmp_path, "images") == [(1, 8), (10, 80), (20, 160)]
    (image,) = read_back.Images("samples")
    assert (image.step, image.width, image.height) == (20, 7, 5)


def test_a_resumed_run_shows_every_point_once(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path, 0)
    for step in range(1, 8):
        first.write({"step": step, "loss": float(step)})
    first.close()
    resumed = TensorBoard(tmp_path, 5)  # a checkpoint after step 5; 6 and 7 are lost
    for step in range(6, 10):
        resumed.write({"step": step, "loss": 10.0 * step})
    resumed.close()
    assert points(tmp_path, "loss") == [(step, step if step <= 5 else 10 * step) for step in range(1, 10)]


class FakeRun:
    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


class FakeError(Exception):
    pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `import wandb` finds: `opened` has the arguments of every init, `runs` what it returned."""
    module: Any = types.ModuleType("wandb")
    module.opened, module.runs, module.Error = [], [], FakeError
    module.Image = lambda path: ("image", path)

    def init(**arguments: Any) -> FakeRun:
        module.opened.append(arguments)
        module.runs.append(FakeRun())
        run: FakeRun = module.runs[-1]
        return run

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "ENTITY", "PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_wandb_gets_every_point_once(wandb: Any, tmp_path: Path) -> None:
    for done, last in ((0, 7), (5, 9)):
        (sink,) = open_sinks(recipe("wandb"), tmp_path, done)
        for step in range(done + 1, last + 1):
            sink.write({"step": step, "loss": float(step)})
            sink.image("samples", tmp_path / "grid.png", step)
        sink.close()
    logged = [(step, *values) for run in wandb.runs for step, values in run.logged]
    assert logged == [(step, name) for step in range(1, 10) for name in ("loss", "samples")]
    assert wandb.runs[0].logged[1] == (1, {"samples": ("image", str(tmp_path / "grid.png"))})
    assert all(run.finished for run in wandb.runs)
    first, second = wandb.opened
    assert first["id"] == second["id"]
    assert first["resume"] == "allow"
    assert first["config"]["data"]["kind"] == "digits"
    assert (first["project"], first["name"], first["dir"]) == ("sitkit", tmp_path.name, str(tmp_path))
    assert "entity" not in first


def test_wandb_takes_its_project_from_the_environment(
    wandb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    open_sinks(recipe("wandb"), tmp_path, 0)
    assert wandb.opened[0]["project"] == "mine"


def test_a_wandb_that_does_not_open_is_one_line(wandb: Any, tmp_path: Path) -> None:
    def refuse(**arguments: Any) -> None:
        raise FakeError("api_key not configured\nTraceback")

    wandb.init = refuse
    with pytest.raises(UserError, match=r"^log.sinks: wandb: api_key not configured; `wandb login`.*offline$"):
        open_sinks(recipe("wandb"), tmp_path, 0)
    (tmp_path / "wandb.json").write_text("{")
    with pytest.raises(UserError, match=r"wandb\.json cannot be used"):
        open_sinks(recipe("wandb"), tmp_path, 0)


@pytest.mark.parametrize(("name", "module"), [("wandb", "wandb"), ("tensorboard", "torch.utils.tensorboard")])
def test_a_missing_package_is_one_line_that_names_the_extra(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(UserError, match=rf"^log.sinks: {name} is not installed: pip install 'sitkit\[{name}\]'"):
        open_sinks(recipe(name), tmp_path, 0)


def test_both_sinks_are_sinks(wandb: Any, tmp_path: Path) -> None:
    sinks: list[Sink] = open_sinks(recipe("tensorboard", "wandb"), tmp_path, 0)
    assert [type(sink).__name__ for sink in sinks] == ["TensorBoard", "WandB"]
    for sink in sinks:
        sink.close()
