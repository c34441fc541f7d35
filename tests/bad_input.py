"""Random bad input for `fuzzing`: valid files and words of a command, damaged at random."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from measuring import SMALL
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.storage.files import sha256
from sitkit.recipes.support.json_toml import flatten

NUMBERS = ["0", "-1", "1", "2", "1.5", "nan", "inf", "-inf", "1e400", "-0.0", "1e-320", ".5", str(2**31), str(2**63)]
NUMBERS += [str(2**64), str(-(2**63)), "9" * 30, "9" * 5000, "0x" + "f" * 40, "1_0", "0b1", "true", "false"]
TEXTS = [
    "",
    " ",
    "auto",
    "none",
    "a",
    "é",
    "\0",
    "a\nb",
    "..",
    "/",
    "/dev/zero",
    "/dev/null",
    "~",
    "x" * 300,
    "{",
    "[",
    "]",
]
TEXTS += [
    "..:x",
    ":",
    "a:b:c",
    "os:system",
    "{}",
    "[]",
    "[[]]",
    "[1, 2]",
    "[0.0, 1.0]",
    "[1.0, 0.0]",
    '"',
    "'",
    "\\",
    "%s",
]
TEXTS += [
    "{kind = 1}",
    "{kind = 'vp'}",
    "{kind = 'vp', beta_max = -1.0}",
    "[" * 400 + "]" * 400,
    "{a=" * 200 + "1" + "}" * 200,
]
TEXTS += [
    "1979-05-27",
    "07:32:00",
    "sde",
    "ode",
    "cpu",
    "meta",
    "ema",
    "width-0.1",
    "\udcff",
    "𝔘",
    "run",
    "samples",
    ".",
]
NASTY = NUMBERS + TEXTS
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**62,
    2**64,
    1e308,
    0.5,
    "",
    "a",
    "x" * 300,
    "..",
    "/dev/zero",
    [],
    {},
]
VALUES += [
    [1],
    [None],
    {"kind": None},
    {"a": 1},
    [[]],
    "vp",
    "auto",
    "os:system",
    "\0",
    "\ud800",
    float("nan"),
    float("inf"),
]
SAFE = ("train.steps", "sampler.steps", "evaluation.num", "evaluation.draws")
"""Keys that may rightly take for ever."""

Words = list[str]
Maker = Callable[[random.Random, Path], Words]
"""Makes the arguments of a command from random choices and a fresh copy of the world, which it damages."""

COMMANDS: dict[str, tuple[Words, Words]] = {
    "show": (["show", "run"], ["--set", "--trust"]),
    "dry run": (["train", "digits", "--dry-run"], ["--processes", "--device", "--set"]),
    "sample": (
        ["sample", "run", "--num", "2", "--out", "a.png"],
        ["--seed", "--batch", "--label", "--labels", "--sampler", "--average", "--device", "--set"],
    ),
    "evaluate": (
        ["evaluate", "samples", "--reference", "images.npz"],
        ["--reference", "--out", "--sampler", "--seed", "--batch", "--average", "--device", "--set"],
    ),
    "likelihood": (
        ["likelihood", "run", "--images", "1", "--rtol", "1e-1", "--atol", "1e-1"],
        ["--probes", "--seed", "--batch", "--average", "--device"],
    ),
    "export": (["export", "samples", "--out", "b"], ["--out"]),
    "compare": (["compare", "samples", "run"], []),
    "replay": (["replay", "run", "--step", "1"], ["--step", "--device"]),
    "encode": (
        ["encode", "pictures", "--out", "latents", "--vae", "missing"],
        ["--size", "--vae", "--batch", "--unreadable", "--device"],
    ),
    "reference": (
        ["reference", "images.npz", "--out", "c.npz", "--features", "pixels", "--size", "8"],
        ["--size", "--channels", "--features", "--batch", "--device", "--out"],
    ),
    "convert": (
        ["convert", "weights.pt", "--family", "sit", "--out", "d"],
        ["--family", "--vae", "--num-heads", "--set"],
    ),
    "study": (["study", "study.toml", "--out", "e", "--list"], ["--jobs", "--only", "--models", "--slurm", "--batch"]),
    "tune": (["tune", "run", "--calls", "1"], ["--over", "--number", "--calls", "--seed", "--set"]),
}


def options(chance: random.Random, place: Path) -> Words:
    """Give commands unexpected options and, in some cases, unexpected arguments."""
    words, more = chance.choice([*COMMANDS.values()])
    words = list(words)
    if chance.random() < 0.3 and len(words) > 1:
        words[1] = _word(chance)
    for _ in range(chance.randint(1, 2)):
        if more:
            option = chance.choice(more)
            value = f"{_key(chance)}={_word(chance)}" if option == "--set" else _word(chance)
            words += [option] if option == "--trust" else [option, value]
    return words


def keys(chance: random.Random, place: Path) -> Words:
    """Set keys of a recipe to invalid values."""
    words = chance.choice([["show", "digits"], ["show", "run"], ["train", "digits", "--dry-run"]])
    settings = [f"{_key(chance)}={_word(chance)}" for _ in range(chance.randint(1, 3))]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def toml(chance: random.Random, place: Path) -> Words:
    """Damage a TOML file."""
    file, words = chance.choice(
        [
            ("recipe.toml", ["show", "recipe.toml"]),
            ("recipe.toml", ["train", "recipe.toml", "--dry-run"]),
            ("sampler.toml", ["sample", "run", "--num", "2", "--out", "a.png", "--sampler", "sampler.toml"]),
            ("study.toml", ["study", "study.toml", "--out", "e", "--list"]),
        ]
    )
    _spoil_text(chance, place / file)
    return words


OF_JSON: list[tuple[str, Words]] = [
    ("run/recipe.json", ["show", "run"]),
    ("run/recipe.json", ["sample", "run", "--num", "2", "--out", "a.png"]),
    ("run/recipe.json", ["train", "run/recipe.json", "--dry-run"]),
    ("run/data.json", ["sample", "run", "--num", "2", "--out", "a.png"]),
    ("run/metrics.jsonl", ["replay", "run", "--step", "1"]),
    ("run/checkpoints/step-00000002/manifest.json", ["sample", "run", "--num", "2", "--out", "a.png"]),
    ("samples/samples.json", ["export", "samples", "--out", "b.npz"]),
    ("samples/samples.json", ["evaluate", "samples", "--reference", "images.npz"]),
    ("samples/report.json", ["compare", "samples", "samples"]),
]


def json_text(chance: random.Random, place: Path) -> Words:
    """Damage the text of a JSON file of a run or of samples."""
    file, words = chance.choice(OF_JSON)
    _spoil_text(chance, place / file)
    return list(words)


def json_values(chance: random.Random, place: Path) -> Words:
    """Put other values into a JSON file of a run or of samples."""
    file, words = chance.choice([one for one in OF_JSON if one[0].endswith(".json")])
    table = json.loads((place / file).read_text())
    for _ in range(chance.randint(1, 2)):
        inner, key = _place_in(chance, table)
        if inner is None:
            break
        if chance.random() < 0.15:
            del inner[key]
        else:
            inner[key] = chance.choice(VALUES)
    (place / file).write_text(json.dumps(table))
    return list(words)


def _place_in(chance: random.Random, table: Any) -> tuple[Any, Any]:
    """Return a table or list, somewhere in a value, and a key of it."""
    inner, key = None, None
    while isinstance(table, dict | list) and table and (inner is None or chance.random() < 0.8):
        inner, key = table, chance.choice([*table] if isinstance(table, dict) else range(len(table)))
        table = inner[key]
    return inner, key


def arrays(chance: random.Random, place: Path) -> Words:
    """Write an npz of arrays that are neither images nor statistics."""
    names = chance.sample(
        ["arr_0", "mu", "sigma", "labels", "images", "about", "features", "count", "a/b"], chance.randint(0, 4)
    )
    shapes = [
        (),
        (0,),
        (3,),
        (24,),
        (64,),
        (64, 64),
        (0, 8, 8, 3),
        (24, 8, 8, 3),
        (24, 8, 8),
        (24, 3, 8, 8),
        (2, 2, 2, 2, 2),
    ]
    kinds = ["u1", "i8", "f2", "f4", "f8", "c8", "?", "U3", "S2", "O", "M8[s]", ">i4", "u8", "f8,i4"]
    content: dict[str, np.ndarray] = {}
    for name in names:
        array = np.zeros(chance.choice(shapes), np.dtype(chance.choice(kinds)))
        if array.dtype.kind in "iuf" and chance.random() < 0.5:
            array[...] = chance.choice([1, 255, np.inf if array.dtype.kind == "f" else 7])
        content[name] = np.asfortranarray(array) if chance.random() < 0.2 else array
    words = chance.choice(
        [
            ["evaluate", "samples", "--reference", "x.npz"],
            ["evaluate", "x.npz", "--reference", "images.npz", "--out", "f"],
            ["reference", "x.npz", "--out", "c.npz", "--features", "pixels", "--size", "8"],
            ["evaluate", "x.npz", "--reference", "x.npz", "--out", "f"],
        ]
    )
    np.savez(place / "x.npz", **content)  # type: ignore[arg-type]
    if chance.random() < 0.2:
        shutil.copy(place / "x.npz", place / "samples" / "shards" / "00000000.npz")
        return ["export", "samples", "--out", "b.npz"]
    return words


def tensors(chance: random.Random, place: Path) -> Words:
    """Change weights of a checkpoint and update its manifest."""
    checkpoint = place / "run" / "checkpoints" / "step-00000002"
    part = chance.choice(["ema", "model", "optimizer", "meters"])
    state = load_file(checkpoint / f"{part}.safetensors")
    for _ in range(chance.randint(1, 2)):
        name = chance.choice([*state] or ["x"])
        value = state.get(name, torch.zeros(1))
        other = [
            value[None],
            torch.zeros(0),
            value.double(),
            value.half(),
            torch.full_like(value, torch.nan),
            value.bool(),
        ]
        state[chance.choice([name, name, f"{name}.x", ""])] = chance.choice(other).clone()
        if chance.random() < 0.2:
            state.pop(name, None)
    save_file(state, checkpoint / f"{part}.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    file = checkpoint / f"{part}.safetensors"
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    if part == "ema":
        return chance.choice(
            [["sample", "run", "--num", "2", "--out", "a.png"], ["likelihood", "run", "--images", "1"]]
        )
    settings = [word for key in ("backbone.hidden_size=8", "sampler.steps=2") for word in ("--set", key)]
    small = [word for key in SMALL if key.partition("=")[0] not in "".join(settings) for word in ("--set", key)]
    goes_on = [
        "train",
        "digits",
        "--out",
        "run",
        *small,
        *settings,
        "--set",
        "train.steps=3",
        "--set",
        "checkpoint.keep=1",
    ]
    return chance.choice([goes_on, ["replay", "run", "--step", "1"]])


def binary(*pairs: tuple[str, Words]) -> Maker:
    """Damage one of some binary files."""

    def spoil(chance: random.Random, place: Path) -> Words:
        file, words = chance.choice(pairs)
        content = bytearray((place / file).read_bytes())
        for _ in range(chance.randint(1, 4)):
            _spoil_bytes(chance, content)
        (place / file).write_bytes(content)
        return list(words)

    return spoil


npz = binary(
    ("images.npz", ["evaluate", "samples", "--reference", "images.npz"]),
    ("images.npz", ["evaluate", "images.npz", "--reference", "samples", "--out", "f"]),
    ("images.npz", ["reference", "images.npz", "--out", "c.npz", "--features", "pixels", "--size", "8"]),
    ("adm.npz", ["evaluate", "samples", "--reference", "adm.npz"]),
    ("samples/shards/00000000.npz", ["export", "samples", "--out", "b.npz"]),
    ("samples/shards/00000008.npz", ["evaluate", "samples", "--reference", "images.npz"]),
)
weights = binary(
    ("weights.safetensors", ["convert", "weights.safetensors", "--family", "sit", "--out", "d"]),
    ("weights.pt", ["convert", "weights.pt", "--family", "dit", "--out", "d"]),
    ("run/checkpoints/step-00000002/ema.safetensors", ["sample", "run", "--num", "2", "--out", "a.png"]),
    ("run/checkpoints/step-00000002/model.safetensors", ["replay", "run", "--step", "1"]),
    ("pictures/a/1.png", ["encode", "pictures", "--out", "latents", "--vae", "missing"]),
    ("pictures/a/1.png", ["reference", "pictures", "--out", "c.npz", "--features", "pixels", "--size", "32"]),
)


def folders(chance: random.Random, place: Path) -> Words:
    """Replace a file or folder by something else."""
    whole = [path for path in sorted(place.rglob("*")) if path.name != ".lock"]
    for _ in range(chance.randint(1, 2)):
        path = chance.choice(whole)
        if not path.exists():
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        kind = chance.choice(["gone", "fifo", "folder", "empty", "device", "circle", "outside"])
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "empty":
            path.touch()
        elif kind != "gone":
            path.symlink_to({"device": "/dev/zero", "circle": str(path), "outside": "/etc/hostname"}[kind])
    words, _ = chance.choice([one for name, one in COMMANDS.items() if name != "tune"])
    return list(words)


KINDS: dict[str, Maker] = {
    "options": options,
    "keys": keys,
    "toml": toml,
    "json text": json_text,
    "json values": json_values,
    "arrays": arrays,
    "tensors": tensors,
    "npz": npz,
    "weights": weights,
    "folders": folders,
}


def _word(chance: random.Random) -> str:
    return chance.choice(NASTY)


ALL_KEYS = sorted(
    {*flatten(read_recipe("digits").model_dump(mode="json")), "path", "data", "backbone", "sampler.w", "path.beta_max"}
)


def _key(chance: random.Random) -> str:
    key = chance.choice([key for key in ALL_KEYS if key not in SAFE])
    return chance.choice([key, key, key, key.partition(".")[0], f"{key}.kind", f"{key}.x", "a." * 60 + "b", "\udcff"])


def _spoil_text(chance: random.Random, file: Path) -> None:
    text = file.read_text()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(text) + 1)
        until = min(len(text), at + chance.choice([0, 0, 1, 5, 40]))
        text = (
            text[:at]
            + chance.choice(["", chance.choice(NASTY), '"', "}", "]", ",", "=", "\n", "9" * 25])
            + text[until:]
        )
    if chance.random() < 0.1:
        text = chance.choice(["", "[]", "{}", "null", "1", '"a"', "[" * 3000, "\ufeff" + text])
    file.write_bytes(text.encode(errors="surrogateescape"))


def _spoil_bytes(chance: random.Random, content: bytearray) -> None:
    if not content:
        return
    at = chance.randrange(len(content)) if chance.random() < 0.5 else chance.randrange(min(len(content), 300))
    what = chance.choice(["flip", "set", "cut", "remove", "insert", "digits"])
    if what == "flip":
        content[at] ^= 1 << chance.randrange(8)
    elif what == "set":
        content[at : at + 8] = chance.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7])
    elif what == "cut":
        del content[at:]
    elif what == "remove":
        del content[at : at + chance.randint(1, 50)]
    elif what == "insert":
        content[at:at] = chance.randbytes(chance.randint(1, 50))
    else:  # of shapes and sizes in headers
        digits = [place for place, byte in enumerate(content[:2000]) if 48 <= byte < 58]
        if digits:
            content[chance.choice(digits)] = chance.choice(b"0123456789-")
