"""Training on several processes equals training on one, and resumes after any stop."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

import forked
from launching import assert_same, command, finish, kill, start, torchrun, wait_for, weights
from sitkit.recipes.runs.run import Run

pytestmark = pytest.mark.slow
EVERY = ["log.every=1", "grid.every=7", "ema.widths=[0.1]", "optimizer.clip=1.0", "train.flip=0.5"]
EVERY += ["train.times.kind=stratified"]
HYBRID = ["path=ddpm", "objective=hybrid", "train.times.kind=grid", "backbone.learn_sigma=true"]
MODES = ["compute.parallel=ddp", "compute.parallel=fsdp"]


def trains(run: Path, log: Path, *settings: str, processes: int = 2, steps: int = 20) -> None:
    words = forked.words(run, *EVERY, *settings, steps=steps)
    assert set(forked.together(processes, words, log)) == {0}, log.read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, 20 steps."""
    folder = tmp_path_factory.mktemp("alone")
    trains(folder / "run", folder / "log", processes=1)
    return folder / "run"


@pytest.mark.parametrize("mode", MODES)
def test_two_processes_reach_the_loss_of_one(alone: Path, tmp_path: Path, mode: str) -> None:
    """With two micro-batches each."""
    trains(tmp_path / "run", tmp_path / "log", mode, "compute.gradient_accumulation=2")
    one, two = Run(alone).metrics(), Run(tmp_path / "run").metrics()
    assert [record["step"] for record in two] == [*range(1, 21)]
    for key in ("loss", "gradient"):
        expected = torch.tensor([record[key] for record in one], dtype=torch.float64)
        torch.testing.assert_close(torch.tensor([r[key] for r in two]).double(), expected, rtol=1e-6, atol=0)
    theirs = {key: value for key, value in weights(tmp_path / "run").items() if key.startswith(("ema", "width"))}
    assert len(theirs) > 20
    for key, value in theirs.items():
        torch.testing.assert_close(value, weights(alone)[key], rtol=1e-4, atol=2e-5)  # Adam magnifies small ones


def test_a_run_resumes_with_another_number_of_processes_and_another_parallel_mode(alone: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    ddp, fsdp = MODES
    for mode, processes, steps in ((fsdp, 2, 7), (ddp, 1, 13), (fsdp, 2, 20)):
        trains(run, log, mode, processes=processes, steps=steps)
    assert log.read_text().count("resuming after step") == 2
    expected = torch.tensor([record["loss"] for record in Run(alone).metrics()])
    torch.testing.assert_close(torch.tensor([r["loss"] for r in Run(run).metrics()]), expected, rtol=2e-6, atol=0)


def test_two_killed_processes_resume_to_the_bit(tmp_path: Path) -> None:
    straight, killed, log = tmp_path / "straight", tmp_path / "killed", tmp_path / "log"
    settings = [*HYBRID, "compute.parallel=fsdp"]
    trains(straight, log, *settings, steps=12)
    words = forked.words(killed, *EVERY, *settings, steps=12)
    assert 0 not in forked.together(2, words, log, ("signals", 8, signal.SIGKILL))
    assert 0 < len(Run(killed).metrics()) < 12
    trains(killed, log, *settings, steps=12)
    assert "resuming after step" in log.read_text()
    assert_same(straight, killed)


def test_a_signal_to_torchrun_saves_a_checkpoint_and_ends_cleanly(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    settings = ["compute.parallel=fsdp", "checkpoint.every=1000"]
    words = forked.words(run, *EVERY, *settings, steps=100_000)
    process = start([*torchrun(2), "-m", "sitkit.recipes", *words], log)
    wait_for(process, run, 3)
    os.kill(process.pid, signal.SIGTERM)
    process.wait(60)
    kill(process)
    assert "interrupted; run the same command again to resume" in log.read_text()
    saved = int(Run(run).latest().name.removeprefix("step-"))
    assert saved >= 3
    trains(run, log, *settings, steps=saved + 2)
    assert f"resuming after step {saved} of" in log.read_text()
    assert [record["step"] for record in Run(run).metrics()] == [*range(1, saved + 3)]


def test_one_process_that_fails_alone_ends_them_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    settings = [*EVERY, "train.times.kind=launching:FailsOnce"]
    words = command(tmp_path / "run", *settings, processes=2)
    assert finish(words, log, timeout=90) != 0
    assert "sitkit: this process has had enough" in log.read_text()


def test_two_machines_train_together_and_one_that_dies_is_waited_for(tmp_path: Path) -> None:
    """Two agents on one machine; one is killed with all its processes, and started again."""
    run, logs = tmp_path / "run", [tmp_path / "log0", tmp_path / "log1"]
    port = 29500 + os.getpid() % 1000
    meet = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]
    meet += ["--max-restarts=3"]
    small = command(run, *EVERY, "train.batch=16", processes=1, steps=200)[1:]  # past the interpreter
    small += ["--set", "checkpoint.every=10"]
    words = [  # the machine with the rendezvous is not killed
        [*torchrun(1, *meet, f"--rdzv-conf=is_host={host},join_timeout=120,last_call_timeout=1"), *small]
        for host in (1, 0)
    ]
    machines = [start(*pair) for pair in zip(words, logs, strict=True)]
    wait_for(machines[0], run, 15)
    assert json.loads((Run(run).latest() / "manifest.json").read_text())["step"] >= 10
    kill(machines[1])
    machines[1] = start(words[1], logs[1])
    codes = [machine.wait(200) for machine in machines]
    assert codes == [0, 0], [log.read_text()[-3000:] for log in logs]
    assert any("resuming after step" in log.read_text() for log in logs)
    assert [record["step"] for record in Run(run).metrics()] == [*range(1, 201)]
