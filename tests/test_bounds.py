"""Too large numbers, too deep nesting, bad paths and devices, too little memory: one line each, and exit code 2."""

import errno
import inspect
import os
import signal
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from test_cli import sitkit

from sitkit.recipes.cli import app
from sitkit.recipes.cli.common import device_of
from sitkit.recipes.cli.errors import line_of, one_interrupt
from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.storage.files import temporary_folder
from sitkit.recipes.support.errors import UserError
from sitkit.recipes.support.json_toml import MAX_DEPTH, read_json, read_toml

HUGE = ("9" * 5000, str(2**64), "0x" + "f" * 5000, "1e400")


@pytest.mark.parametrize("key", ["train.batch", "train.steps", "seed", "log.bins", "backbone.depth", "sampler.steps"])
def test_keys_have_bounds(key: str) -> None:
    for value in (*HUGE, "-1", str(2**62 if key != "seed" else 2**63)):
        with pytest.raises(UserError) as raised:
            read_recipe("digits", [f"{key}={value}"])
        assert str(raised.value).startswith(f"{key}: ")
        assert len(str(raised.value)) < 400


def test_fields_of_components_have_bounds() -> None:
    for settings, said in (
        (["data.kind=absent", "data.shape=[1, 8, 8]", "data.classes=2147483647"], "data.classes: "),
        (["data.kind=folder", "data.path=a", "data.size=100000"], "data.size: "),
    ):
        with pytest.raises(UserError, match=said):
            read_recipe("digits", settings)


def test_every_number_that_the_command_line_takes_is_bounded() -> None:
    found = 0
    for one in app.registered_commands:
        hints = get_type_hints(inspect.unwrap(one.callback), include_extras=True)  # type: ignore[arg-type]
        for name, hint in hints.items():
            kind, *rest = get_args(hint) or (hint,)
            if kind in (int, int | None):
                (option,) = rest
                assert option.min is not None, name
                assert option.max is not None, name
                assert option.max < 2**63, name
                found += 1
    assert found > 20


def test_options_have_bounds(tmp_path: Path) -> None:
    for value in HUGE:
        for name in ("--samples", "--seed", "--batch"):
            code, said = sitkit("sample", tmp_path, "--out", "a.png", name, value)
            assert code == 2
            assert "Invalid value" in said


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a = ", "}")])
def test_nesting_has_bounds(opening: str, closing: str, tmp_path: Path) -> None:
    for depth in (MAX_DEPTH + 1, 200, 5000):
        text = f"value = {opening * depth}0{closing * depth}"
        with pytest.raises(ValueError, match="deep"):
            read_toml(text)
        with pytest.raises(ValueError, match="deep"):
            read_json("[" * (depth + 1) + "]" * (depth + 1))
        file = tmp_path / "a.toml"
        file.write_text(text)
        with pytest.raises(UserError, match="is not TOML: it is nested"):
            read_recipe(str(file))
        with pytest.raises(UserError, match=r"train\.steps"):
            read_recipe("digits", [f"train.steps={opening * depth}0{closing * depth}"])
        with pytest.raises(UserError, match="--set takes key=value"):
            read_recipe("digits", [".".join(["a"] * depth) + "=1"])
    assert read_toml("a = [[1]]") == {"a": [[1]]}
    with pytest.raises(ValueError, match="64 bits"):
        read_json(str(2**63))


@pytest.mark.parametrize("device", ["meta", "hpu", "privateuseone", "xla", "mkldnn", "cuda:99999999999", "", "0", "é"])
def test_devices_that_do_not_compute(device: str) -> None:
    with pytest.raises(
        UserError, match=r"--device .* cannot be used here: .*; cpu, cuda and cuda:1 are devices"
    ) as raised:
        device_of(device)
    assert "\n" not in str(raised.value)
    assert device_of("cpu:7") == torch.device("cpu")


def test_errors_that_a_user_can_fix_are_one_line() -> None:
    lower = "lower it"
    for error in (
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ):
        assert line_of(error, lower) == "out of memory: lower it"
    assert (
        line_of(torch.OutOfMemoryError("CUDA out of memory. Tried to"), lower) == "out of memory of the GPU: lower it"
    )
    assert line_of(OSError(errno.EACCES, "Permission denied", "a/b"), lower) == "a/b: Permission denied"
    assert line_of(OSError("odd"), lower) == "odd"
    assert line_of(RuntimeError("shapes differ"), lower) is None
    assert line_of(OSError(errno.EPIPE, "Broken pipe"), lower) is None
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert line_of(raised.value, lower) == "out of memory: lower it"
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**40, 2**40)
    assert line_of(raised.value, lower) == "out of memory: lower it"


def test_memory_that_is_used_up_ends_in_a_line(tmp_path: Path) -> None:
    settings = ["--set", "backbone.hidden_size=1000000000000"]
    code, said = sitkit("train", "digits", "--out", tmp_path / "run", *settings)
    assert code == 2
    assert said.splitlines()[-1].startswith("sitkit: out of memory: lower train.batch")


def test_a_second_interrupt_does_not_stop_the_cleanup_of_the_first(tmp_path: Path) -> None:
    cleaned = []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it for what it runs in the background
    try:
        with one_interrupt(), temporary_folder(tmp_path / "out") as draft:
            (draft / "half").touch()
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                cleaned.append(draft)
    except KeyboardInterrupt:
        cleaned.append(tmp_path)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert cleaned == [tmp_path / ".out.tmp", tmp_path]
    assert not [*tmp_path.iterdir()]


LONG = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["show", LONG],
        ["show", f"{LONG}.toml"],
        ["train", "digits", "--out", LONG],
        ["train", f"{LONG}.toml", "--out", "run"],
        ["sample", LONG, "--out", "a.npz"],
        ["sample", "run", "--out", f"{LONG}.npz"],
        ["evaluate", LONG],
        ["evaluate", "samples", "--reference", f"{LONG}.npz"],
        ["evaluate", "samples", "--out", LONG],
        ["compare", LONG, LONG],
        ["export", LONG, "--out", "a.npz"],
        ["export", "samples", "--out", LONG],
        ["encode", LONG, "--out", "latents"],
        ["convert", LONG, "--family", "sit", "--out", "run"],
        ["convert", "a.pt", "--family", "sit", "--out", LONG],
        ["reference", LONG, "--out", "a.npz"],
        ["reference", "a.npz", "--out", f"{LONG}.npz"],
        ["study", f"{LONG}.toml", "--out", "study"],
        ["study", "a.toml", "--out", LONG],
        ["plane", "--out", LONG, "--steps", "1"],
        ["likelihood", LONG],
        ["replay", LONG, "--step", "1"],
        ["tune", LONG, "--over", "sampler.w", "--calls", "2"],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_names_that_are_too_long_or_not_utf8(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    writes = words[0] in ("train", "plane") and "--out" in words  # which any folder allows
    for name in (LONG, "a/" * 3000, *([] if writes else [os.fsdecode(b"\xff\xfe/a")])):
        code, said = sitkit(*[word.replace(LONG, name) for word in words])
        assert code == 2
        assert said.startswith("sitkit: ")
        assert "Traceback" not in said
