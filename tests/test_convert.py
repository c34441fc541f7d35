"""`sitkit convert`: released weights become a complete run with the same network, or one line and no files."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from released import CPU, LOADERS, convert, save, sitkit, weights
from sitkit.backbones import load_dit, load_sit
from sitkit.interpolants import DDPM
from sitkit.recipes.data import absent
from sitkit.recipes.data.images import to_pixels
from sitkit.recipes.network.build import load_network
from sitkit.recipes.network.convert import Family, family_warning, read_weights, recipe_of, write_run
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.random_streams import Stream, noise

GOLDEN = Path(__file__).parent / "golden" / "official-checkpoint.pt"
HERE = ["--num-heads", 2]


@pytest.mark.parametrize("family", LOADERS)
@pytest.mark.parametrize("layout", ["training", "plain", "module", "raw"])
def test_the_network_is_that_of_the_file_to_the_bit(family: str, layout: str, tmp_path: Path) -> None:
    plain = weights()
    content: dict[str, Any] = {
        "plain": plain,
        "module": {"ema": {f"module.{key}": value for key, value in plain.items()}},
        "raw": {"ema": weights(3), "model": plain},
        "training": None,
    }
    file = save(tmp_path / "any.pt", content[layout])
    extra = ["--no-ema"] if layout == "raw" else []
    code, said = sitkit("convert", file, "--family", family, "--out", tmp_path / "run", *HERE, *extra)
    assert code == 0
    assert "0.02 M parameters; sample from it: `sitkit sample" in said
    run = Run.find(tmp_path / "run")
    network: Any = load_network(run.recipe(), run.recipe().data.build(), run.latest(), CPU)
    expected: Any = LOADERS[family](plain, num_heads=2)
    x, t, y = (
        noise(0, Stream.START, torch.arange(3), (4, 4, 4)),
        torch.tensor([0.0, 0.417, 1.0]),
        torch.tensor([0, 4, 5]),
    )
    with torch.no_grad():
        assert torch.equal(network.full(x, t, y), expected.full(x, t, y))
        assert torch.equal(network(x, t), expected(x, t))


def test_the_official_checkpoint_becomes_a_run_as_training_writes_it(tmp_path: Path) -> None:
    code, _ = sitkit("convert", GOLDEN, "--family", "sit", "--out", tmp_path / "new" / "run", "--num-heads", 4)
    assert code == 0
    run = Run.find(tmp_path / "new" / "run")
    assert [file.name for file in run.folder.parent.iterdir()] == ["run"]
    checkpoint = run.checkpoints / "step-00000000"
    assert run.latest() == checkpoint
    assert {file.name for file in checkpoint.iterdir()} == {"ema.safetensors", "recipe.json", "manifest.json"}
    checkpoints.verify(checkpoint)
    assert (checkpoint / "recipe.json").read_text() == run.recipe_file.read_text()
    expected = load_sit(GOLDEN, num_heads=4).state_dict()
    written = checkpoints.load(checkpoint, "ema")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())
    assert run.folder.stat().st_mode & 0o777 == (tmp_path / "new").stat().st_mode & 0o777


def test_the_recipe_states_how_the_network_is_read(tmp_path: Path) -> None:
    cases: list[tuple[Family, dict[str, Any]]] = [("sit", {}), ("dit", {}), ("dit", {"learn_sigma": False})]
    sit, dit, plain = (
        recipe_of(read_weights(save(tmp_path / "x.pt", **sizes), family, num_heads=2)).model_dump(mode="json")
        for family, sizes in cases
    )
    backbone = {"patch_size": 2, "hidden_size": 16, "depth": 2, "num_heads": 2, "learn_sigma": True}
    assert sit["backbone"] == {"kind": "sit", **backbone, "time_scale": 1.0}
    assert dit["backbone"] == {"kind": "dit", **backbone, "steps": 1000}
    assert plain["backbone"] == {**dit["backbone"], "learn_sigma": False}
    assert (sit["path"]["kind"], dit["path"]) == ("linear", {"kind": "ddpm"} | vars(DDPM()))
    assert [one["objective"]["kind"] for one in (sit, dit, plain)] == ["matching", "hybrid", "matching"]
    assert [one["objective"].get("predict") for one in (sit, dit, plain)] == ["velocity", None, "noise"]
    data = {"shape": [4, 4, 4], "classes": 5, "vae": "stabilityai/sd-vae-ft-ema", "scale": 0.18215, "shift": 0.0}
    assert sit["data"] == dit["data"] == {"kind": "absent", **data}
    assert sit["guidance"]["scale"] == 1.0
    assert (sit["sampler"]["kind"], sit["sampler"]["solver"]) == ("ode", "auto")


def test_a_run_with_data_is_evaluated(tmp_path: Path) -> None:
    digits = {"in_channels": 1, "input_size": 8, "num_classes": 10}
    run = convert(tmp_path, "sit", "--set", "data.kind=digits", **digits)
    few = ["--set", "sampler.steps=2", "--set", "evaluation.num=20", "--set", "evaluation.draws=2"]
    code, said = sitkit("evaluate", run.folder, *few)
    assert code == 0, said
    assert "Frechet distance of pixels" in said
    assert sitkit("likelihood", run.folder, "--num", 2, "--probes", 1)[0] == 0


def test_a_dit_trains_from_scratch(tmp_path: Path) -> None:
    tiny = ["hidden_size=16", "depth=1", "num_heads=2"]
    settings = ["backbone={kind='dit', patch_size=2, " + ", ".join(tiny) + "}", "path=ddpm", "objective=hybrid"]
    settings += ["train.times=grid", "train.steps=2", "train.batch=4", "sampler.steps=2"]
    sets = [part for one in settings for part in ("--set", one)]
    assert sitkit("train", "digits", "--out", tmp_path / "run", *sets)[0] == 0
    assert sitkit("sample", tmp_path / "run", "--num", 2, "--out", tmp_path / "x.npz")[0] == 0


def test_pixels_need_no_autoencoder(tmp_path: Path) -> None:
    run = convert(tmp_path, "sit", in_channels=3)
    assert sitkit("sample", run.folder, "--num", 2, "--out", tmp_path / "x.npz")[0] == 0
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(run.recipe().data.build().decode(x), to_pixels(x))
    assert absent((1, 4, 4), vae="none").classes == ()


@pytest.mark.parametrize(
    "line",
    [
        "evaluate {run}",
        "evaluate {run} --set evaluation.num=4",
        "likelihood {run}",
        "sample {run} --out {new}.png --set sampler.kind=sde --set sampler.w.kind=kl_eta --set sampler.w.eta=1.0",
        "train {toml} --out {new}",
    ],
)
def test_without_data_all_but_sampling_is_refused_in_a_line(line: str, tmp_path: Path) -> None:
    run = convert(tmp_path, "sit")
    code, toml = sitkit("show", run.folder)
    assert code == 0
    (tmp_path / "absent.toml").write_text(toml)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    places = {"run": run.folder, "toml": tmp_path / "absent.toml", "new": tmp_path / "new"}
    code, said = sitkit(*line.format(**places).split())
    assert (code, said.count("\n")) == (2, 1), said
    assert "the data of this run are absent" in said
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


REPA = {"projectors.0.0.weight": torch.zeros(3, 3), "projectors.0.0.bias": torch.zeros(3)}
SIT = "--family sit --num-heads 2"
REFUSED = [
    (f"{{none}} {SIT} --out {{new}}", "there is no file"),
    (f"{{folder}} {SIT} --out {{new}}", "there is no file"),
    (f"{{cut}} {SIT} --out {{new}}", "is broken, or contains more than weights"),
    (f"{{list}} {SIT} --out {{new}}", "holds no weights"),
    (f"{{repa}} {SIT} --out {{new}}", "it also has projectors.0.0.weight, projectors.0.0.bias"),
    (f"{{lightning}} {SIT} --out {{new}}", "it lacks blocks.0.mlp.fc1.weight"),
    (f"{{less}} {SIT} --out {{new}}", "it lacks 'pos_embed'"),
    (f"{{flat}} {SIT} --out {{new}}", "its first layer has shape (16, 16)"),
    ("{good} --family dit --out {new}", "no published size has width 16: give --num-heads"),
    (f"{{raw}} {SIT} --out {{new}}", "has no 'ema' weights, but 'model'"),
    (f"{{good}} {SIT} --out {{run}}", "already has a run; give another --out"),
    (f"{{good}} {SIT} --out {{folder}}", "is not empty; give another --out"),
    (f"{{good}} {SIT} --out {{good}}", "cannot be written"),
    (f"{{good}} {SIT} --out {{good}}/below", "cannot be written"),
    (f"{{good}} {SIT} --out {{new}} --vae none", "states of 4 channels are not pixels"),
    (f"{{good}} {SIT} --out {{new}} --set path=vp", "only sampler, guidance, compute, data, evaluation can be changed"),
    (
        f"{{good}} {SIT} --out {{new}} --set data=digits",
        "the network is for states (4, 4, 4) of 5 classes, the data have (1, 8, 8) of 10",
    ),
]


@pytest.mark.parametrize(("command", "said"), REFUSED)
def test_bad_input_is_one_line_and_leaves_nothing(command: str, said: str, tmp_path: Path) -> None:
    run, plain = convert(tmp_path, "sit"), weights()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    lightning = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in plain.items()}
    content: dict[str, Any] = {
        "good": None,
        "list": [torch.zeros(2)],
        "repa": {"ema": plain | REPA},
        "lightning": lightning,
        "less": {key: value for key, value in plain.items() if key != "pos_embed"},
        "flat": plain | {"x_embedder.proj.weight": torch.zeros(16, 16)},
        "raw": {"model": plain},
    }
    places = {name: save(tmp_path / f"{name}.pt", value) for name, value in content.items()}
    (tmp_path / "cut.pt").write_bytes(places["good"].read_bytes()[:9000])
    places |= {name: tmp_path / name for name in ("new", "folder", "none")}
    places |= {"cut": tmp_path / "cut.pt", "run": run.folder}
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    code, line = sitkit("convert", *command.format(**places).split())
    assert code == 2, line
    assert said in line
    assert line.count("\n") == 1
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_repas_velocity_is_turned(tmp_path: Path) -> None:
    """Its time is 1 - t, from data to noise, so its velocity has the other sign."""
    plain = weights(learn_sigma=False)
    file = save(tmp_path / "repa.pt", {"ema": {f"module.{key}": value for key, value in (plain | REPA).items()}})
    code, said = sitkit("convert", file, "--family", "repa", "--out", tmp_path / "run", *HERE)
    assert code == 0, said
    run = Run.find(tmp_path / "run")
    found = load_network(run.recipe(), run.recipe().data.build(), run.latest(), CPU)
    theirs = load_sit(plain, num_heads=2)
    x, t, y = torch.randn(7, 4, 4, 4), torch.linspace(0, 1, 7), torch.arange(7) % 6
    with torch.no_grad():
        torch.testing.assert_close(found(x, t, y), -theirs(x, 1 - t, y), rtol=1e-4, atol=1e-5)
    cut = save(tmp_path / "cut.pt", {"ema": REPA})
    code, said = sitkit("convert", cut, "--family", "repa", "--out", tmp_path / "x")
    assert (code, "it lacks x_embedder" in said) == (2, True)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_of_a_run_leaves_no_files(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = read_weights(save(tmp_path / "official.pt"), "sit", num_heads=2)

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(checkpoints, "finish", fail)
    with pytest.raises(UserError if isinstance(failure, OSError) else KeyboardInterrupt):
        write_run(network, recipe_of(network), tmp_path / "run")
    assert [file.name for file in tmp_path.iterdir()] == ["official.pt"]
    monkeypatch.undo()
    (tmp_path / "run").mkdir()  # empty: it is taken
    write_run(network, recipe_of(network), tmp_path / "run")
    assert Run.find(tmp_path / "run").latest().name == "step-00000000"


def test_an_untrained_half_of_the_output_identifies_the_family(tmp_path: Path) -> None:
    trained, idle = weights(), weights()
    rows = (torch.arange(32) % 8 >= 4).nonzero()[:, 0]
    for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
        idle[key] = idle[key].index_fill(0, rows, 0.0)
    assert family_warning(load_sit(idle, num_heads=2)) is None
    assert family_warning(load_dit(trained, num_heads=2)) is None
    assert "try --family dit" in str(family_warning(load_sit(trained, num_heads=2)))
    assert "try --family sit" in str(family_warning(load_dit(idle, num_heads=2)))
    assert family_warning(load_sit(weights(learn_sigma=False), num_heads=2)) is None
    file = save(tmp_path / "idle.pt", idle)
    code, said = sitkit("convert", file, "--family", "dit", "--out", tmp_path / "run", *HERE)
    assert (code, f"{file}: the second half of the output is zero" in said) == (0, True)
