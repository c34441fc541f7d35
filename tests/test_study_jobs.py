"""Jobs of a study: in processes of this machine, killed and resumed, or on a cluster."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from launching import ALONE, finish, kill, start
from sitkit.recipes.study.local_jobs import Job, JobResult, run_jobs
from sitkit.recipes.study.run import StudyRun, jobs_of
from sitkit.recipes.study.slurm import submit
from sitkit.recipes.support.errors import UserError
from studies import AXES, SMALL, grid, sitkit, write


def run(
    jobs: Sequence[Job],
    at_once: int,
    folder: Path,
    codes: Mapping[str, str],
    report: Callable[[JobResult], None] = lambda result: None,
) -> None:
    """Run jobs whose commands are the Python code of their keys, one after the other."""
    command = lambda keys: [sys.executable, "-c", "\n".join(codes[key] for key in keys)]  # noqa: E731
    run_jobs(jobs, at_once, command, lambda key: folder / f"{key}.txt", report)


def test_jobs_wait_for_what_they_need_and_failures_stop_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "after").mkdir()
    mark = "open('{0}/after/{1}', 'x').close()"
    codes = {
        "slow": "import os, time; time.sleep(.3); " + mark.format(tmp_path, "slow"),
        "needy": f"import os; assert os.path.exists('{tmp_path}/after/slow'); " + mark.format(tmp_path, "needy"),
        "bad": "print('much'); raise ValueError('of this')",
        "never": mark.format(tmp_path, "never"),
        "nor this": mark.format(tmp_path, "never"),
        "killed": "import os; os.kill(os.getpid(), 9)",
        "mute": "raise SystemExit(3)",
        "ready": mark.format(tmp_path, "ready"),
    }
    needs = {"needy": "slow", "never": "bad", "nor this": "never", "ready": "done before"}
    ended: dict[str, str | None] = {}

    def report(one: JobResult) -> None:
        ended[one.key] = one.failure

    run([Job((key,), needs.get(key)) for key in codes], 2, tmp_path, codes, report)
    assert ended == {
        "slow": None,
        "needy": None,
        "bad": "ValueError: of this",
        "never": "not tried, for bad failed",
        "nor this": "not tried, for never failed",
        "killed": "killed by SIGKILL",
        "mute": "exit code 3, without output",
        "ready": None,
    }
    assert sorted(file.name for file in (tmp_path / "after").iterdir()) == ["needy", "ready", "slow"]


def test_parts_of_a_job_are_repeated_one_by_one_if_it_fails(tmp_path: Path) -> None:
    codes = {"a": "print('a')", "b": "raise ValueError('b')", "c": "pass", "d": "print('d')", "e": "print('e')"}
    jobs = [Job(("a", "b", "c"), cost=3.0), Job(("d", "e"), cost=1.0), Job(("f", "g"), "b")]
    ended: list[JobResult] = []
    run(jobs, 1, tmp_path, codes, ended.append)
    failures = {"b": "ValueError: b", "f": "not tried, for b failed", "g": "not tried, for b failed"}
    assert {one.key: one.failure for one in ended} == {key: failures.get(key) for key in "abcdefg"}
    assert [one.cost for one in sorted(ended, key=lambda one: one.key)] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5]
    assert (tmp_path / "a.txt").read_text() == "a\n"
    assert (tmp_path / "d.txt").read_text() == "d\ne\n"  # by one process


@pytest.mark.parametrize(("at_once", "sizes"), [(1, [2, 2, 2, 2]), (3, [1] * 8), (100, [1] * 8)])
def test_cells_of_a_network_are_measured_together_unless_processes_would_be_idle(
    tmp_path: Path, at_once: int, sizes: list[int]
) -> None:
    study = StudyRun.open(write(tmp_path / "study.toml", SMALL + AXES), tmp_path / "out", None, [])
    networks, cells = study.open_parts()
    jobs = [*jobs_of(networks, cells, at_once)]
    assert [job.keys for job in jobs[: len(networks)]] == [(key,) for key in study.grid.networks]
    groups = jobs[len(networks) :]
    assert [len(job.keys) for job in groups] == sizes
    assert sorted(key for job in groups for key in job.keys) == sorted(study.grid.cells)
    for job in groups:
        assert {study.grid.cells[key].network.key for key in job.keys} == {job.needs}
        assert study.command(job.keys).count("--only") == len(job.keys)


def test_the_number_of_jobs_at_once_is_bounded_and_cores_are_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    code = f"""
import os, time
open(f'{tmp_path}/{{os.getpid()}}.on', 'x').close()
print(len([name for name in os.listdir('{tmp_path}') if name.endswith('.on')]), os.environ['OMP_NUM_THREADS'])
time.sleep(.3)
os.remove(f'{tmp_path}/{{os.getpid()}}.on')
"""
    codes = dict.fromkeys("abcde", code)
    run([Job((key,)) for key in codes], 2, tmp_path, codes)
    said = [(tmp_path / f"{key}.txt").read_text().split() for key in codes]
    assert max(int(count) for count, _ in said) == 2
    cores = len(os.sched_getaffinity(0))
    assert {int(threads) for _, threads in said} == {max(1, cores // 2)}


def test_a_signal_stops_all_started_jobs(tmp_path: Path) -> None:
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('stopped')"
    stop = "import os, signal, time; time.sleep(.7); os.kill(os.getppid(), signal.SIGTERM)"
    start_time = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([Job(("b",)), Job(("a",))], 2, tmp_path, {"a": stop, "b": code})
    assert time.monotonic() - start_time < 20
    assert (tmp_path / "b.txt").read_text() == "stopped\n"


FAILING = """
[axes.way]
usual = {}
broken = { objective = { kind = "faulty:Sometimes", numbers = [16, 32], seed = 3 } }
"""
"""The loss of samples 16 and 32 is NaN, so two steps in a row are skipped, and the patience is exhausted."""


def study_command(folder: Path, out: str, *words: str) -> list[str]:
    return [*ALONE, "study", str(folder / "study.toml"), "--out", str(folder / out), "--jobs", "2", *words]


def numbers(out: Path) -> list[object]:
    """Return the results of a study with the names of its parts."""
    rows = json.loads((out / "study.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "report"} for row in rows]


@pytest.mark.slow
def test_failures_are_named_and_the_rest_is_done(tmp_path: Path) -> None:
    write(tmp_path / "study.toml", SMALL.replace("[3, 5]", "[3]") + FAILING)
    assert finish(study_command(tmp_path, "out"), tmp_path / "log") == 1
    found = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [(row["way"], row["seed"]) for row in found["rows"]] == [("usual", 3)]
    network, cell = found["failed"]
    assert network["what"] == "broken, seed 3"
    assert network["why"].startswith("loss or gradient were not finite in 2 steps in a row")
    assert (cell["what"], cell["why"]) == ("broken, seed 3", f"not tried, for {network['key']} failed")
    said = (tmp_path / "log").read_text()
    assert f"failed: {network['key']} (broken, seed 3): loss or gradient" in said
    assert "1 of 2 combinations measured" in said
    assert "1 networks and" not in said.splitlines()[-1]
    for page in ("study.md", "study.html"):
        assert network["key"] in (tmp_path / "out" / page).read_text()


@pytest.mark.slow
def test_a_repeatedly_killed_study_finds_the_same_as_an_uninterrupted_one(tmp_path: Path) -> None:
    text = SMALL.replace("[3, 5]", "[3]") + AXES.replace("[2, 3]", "[2]")
    parts = grid(tmp_path, text)
    whole = ("study", tmp_path / "study.toml", "--out", tmp_path / "whole")
    assert sitkit(*whole, *(word for key in [*parts.networks, *parts.cells] for word in ("--only", key)))[0] == 0
    assert sitkit(*whole)[0] == 0
    for patience in (5.0, 8.0):
        process = start(study_command(tmp_path, "killed"), tmp_path / "log")
        end = time.monotonic() + patience
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        kill(process)
    assert finish(study_command(tmp_path, "killed"), tmp_path / "log") == 0
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")


def test_slurm_gets_an_array_of_networks_and_one_of_cells_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    counts = f"n=$(ls {tmp_path}/*.sbatch 2>/dev/null | wc -l); cp $1 {tmp_path}/$n.sbatch"
    for name, script in (("srun", ""), ("sbatch", f"{counts}; echo Submitted batch job $((70 + n))")):
        write(tmp_path / "bin" / name, f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    file = write(tmp_path / "study.toml", SMALL + AXES)
    code, said = sitkit(
        *("study", file, "--out", tmp_path / "out", "--submit", "slurm"),
        *("--slurm", "slurm_partition=slow", "--slurm", "timeout_min=7"),
    )
    assert code == 0
    assert "12 jobs submitted" in said
    networks, cells = ((tmp_path / f"{number}.sbatch").read_text() for number in (0, 1))
    assert "#SBATCH --array=0-3" in networks
    assert "--dependency" not in networks
    assert "#SBATCH --array=0-7" in cells
    assert "#SBATCH --dependency=afterany:70" in cells
    assert all("#SBATCH --partition=slow" in script and "#SBATCH --time=7" in script for script in (networks, cells))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit 1.5 leaves its logs open
def test_jobs_of_a_cluster_do_the_same_as_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    file = write(tmp_path / "study.toml", SMALL.replace("[3, 5]", "[3]"))
    study = StudyRun.open(file, tmp_path / "out", None, [])
    jobs = submit(study, ["timeout_min=5"], cluster="debug")
    assert len(jobs) == 2
    for one in jobs:
        one.wait()
    assert study.open_parts() == ({}, {})
    assert submit(study, [], cluster="debug") == []
    with pytest.raises(UserError, match=r"--submit debug: .*no_such"):
        submit(study, ["no_such=5"], cluster="debug")
