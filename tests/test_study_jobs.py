"""Jobs of a study: in processes of this machine, killed and resumed, or on a cluster."""

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launching import ALONE, finish, kill, start
from sitkit.recipes.study.local_jobs import Ended, Job, run_all
from sitkit.recipes.study.run import Work, jobs_of
from sitkit.recipes.study.slurm import submit
from sitkit.recipes.support.errors import UserError
from studies import AXES, SMALL, layout, sitkit, write


def job(key: str, code: str, folder: Path, needs: str | None = None) -> Job:
    return Job(key, [sys.executable, "-c", code], folder / f"{key}.txt", needs, 1.0)


def test_jobs_wait_for_what_they_need_and_failures_stop_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "after").mkdir()
    mark = "open('{0}/after/{1}', 'x').close()"
    waits = "import os, time; time.sleep(.3); " + mark.format(tmp_path, "slow")
    needs = f"import os; assert os.path.exists('{tmp_path}/after/slow'); " + mark.format(tmp_path, "needy")
    jobs = [
        job("slow", waits, tmp_path),
        job("needy", needs, tmp_path, "slow"),
        job("bad", "print('much'); raise ValueError('of this')", tmp_path),
        job("never", mark.format(tmp_path, "never"), tmp_path, "bad"),
        job("nor this", mark.format(tmp_path, "never"), tmp_path, "never"),
        job("killed", "import os; os.kill(os.getpid(), 9)", tmp_path),
        job("mute", "raise SystemExit(3)", tmp_path),
        job("ready", mark.format(tmp_path, "ready"), tmp_path, "done before"),
    ]
    ended: dict[str, str | None] = {}

    def tell(one: Ended) -> None:
        ended[one.job.key] = one.failure

    run_all(jobs, 2, tell)
    assert ended == {
        "slow": None,
        "needy": None,
        "bad": "ValueError: of this",
        "never": "not tried, for bad failed",
        "nor this": "not tried, for never failed",
        "killed": "killed by SIGKILL",
        "mute": "exit code 3, without a word",
        "ready": None,
    }
    assert sorted(file.name for file in (tmp_path / "after").iterdir()) == ["needy", "ready", "slow"]


def test_jobs_that_fail_together_are_run_one_by_one(tmp_path: Path) -> None:
    never = tuple(job(key, "pass", tmp_path, "b") for key in "ef")
    alone = [job("a", "pass", tmp_path), job("b", "raise ValueError('b')", tmp_path), job("c", "pass", tmp_path)]
    good = Job("d", job("d", "pass", tmp_path).words, tmp_path / "d.txt", None, 2.0, (job("d", "1 / 0", tmp_path),))
    together = Job("a", job("", "import os; os.kill(os.getpid(), 9)", tmp_path).words, tmp_path / "a.txt", None, 3.0)
    ended: list[tuple[str, str | None]] = []
    jobs = [replace(together, others=tuple(alone)), good, replace(never[0], others=never)]
    run_all(jobs, 1, lambda one: ended.append((one.job.key, one.failure)))
    assert sorted(ended, key=lambda one: one[0]) == [
        ("a", None),
        ("b", "ValueError: b"),
        ("c", None),
        ("d", None),
        ("e", "not tried, for b failed"),
        ("f", "not tried, for b failed"),
    ]


@pytest.mark.parametrize(("at_once", "sizes"), [(1, [2, 2, 2, 2]), (3, [1] * 8), (100, [1] * 8)])
def test_cells_of_a_network_are_measured_together_unless_processes_would_be_idle(
    tmp_path: Path, at_once: int, sizes: list[int]
) -> None:
    file = write(tmp_path / "study.toml", SMALL + AXES)
    work = Work.open(file, tmp_path / "out", None, [])
    parts = work.open_parts()
    jobs = [*jobs_of(work, parts, at_once)]
    count = len(work.layout.models)
    networks, cells = jobs[:count], jobs[count:]
    assert [one.key for one in networks] == [*work.layout.models]
    assert [one.words.count("--only") for one in cells] == sizes
    found = [alone.key for one in cells for alone in one.others or (one,)]
    assert sorted(found) == sorted(work.layout.cells)
    for one in cells:
        assert {work.layout.cells[alone.key].model.key for alone in one.others or (one,)} == {one.needs}


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
    run_all([job(str(number), code, tmp_path) for number in range(5)], 2, lambda ended: None)
    said = [(tmp_path / f"{number}.txt").read_text().split() for number in range(5)]
    assert max(int(count) for count, _ in said) == 2
    cores = len(os.sched_getaffinity(0))
    assert {int(threads) for _, threads in said} == {max(1, cores // 2)}


def test_a_signal_stops_all_started_jobs(tmp_path: Path) -> None:
    code = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('stopped')"
    jobs = [job("a", "import os, signal, time; time.sleep(.7); os.kill(os.getppid(), signal.SIGTERM)", tmp_path)]
    start_time = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_all([job("b", code, tmp_path), *jobs], 2, lambda ended: None)
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
    assert "1 of 2 places measured" in said
    assert "1 networks and" not in said.splitlines()[-1]
    for page in ("study.md", "study.html"):
        assert network["key"] in (tmp_path / "out" / page).read_text()


@pytest.mark.slow
def test_a_repeatedly_killed_study_finds_the_same_as_an_uninterrupted_one(tmp_path: Path) -> None:
    text = SMALL.replace("[3, 5]", "[3]") + AXES.replace("[2, 3]", "[2]")
    parts = layout(tmp_path, text)
    whole = ("study", tmp_path / "study.toml", "--out", tmp_path / "whole")
    assert sitkit(*whole, *(word for key in [*parts.models, *parts.cells] for word in ("--only", key)))[0] == 0
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
    work = Work.open(file, tmp_path / "out", None, [])
    jobs = submit(work, ["timeout_min=5"], cluster="debug")
    assert len(jobs) == 2
    for one in jobs:
        one.wait()
    assert not work.open_parts()
    assert submit(work, [], cluster="debug") == []
    with pytest.raises(UserError, match=r"--submit debug: .*no_such"):
        submit(work, ["no_such=5"], cluster="debug")
