"""The wait policy of threads follows the machine's load before torch is imported, and a user's setting wins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sitkit.recipes.cli.threads import (
    BUSY,
    QUIET,
    WAIT_SETTINGS,
    choose_wait_policy,
    other_threads,
    thread_count,
    wait_settings,
)
from sitkit.recipes.study.local_jobs import threads

PRINTS = """import os
print(*(os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")), flush=True)
os._exit(0)
"""
"""A module that stands in for torch: it prints the environment in which torch is imported."""

MODULE = [sys.executable, "-m", "sitkit.recipes"]
SCRIPT = [sys.executable, "-c", "from sitkit.recipes.cli import main; main()"]  # what an installed `sitkit` runs


def environment_at_import(command: list[str], folder: Path, **settings: str) -> list[str]:
    """Return the settings that torch would find when a command imports it."""
    (folder / "torch.py").write_text(PRINTS)
    names = (*WAIT_SETTINGS, "OMP_NUM_THREADS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    environment = {**clean, "PYTHONPATH": str(folder), **settings}
    done = subprocess.run([*command, "show", "digits"], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_the_choice_is_made_before_torch_is_imported(command: list[str], tmp_path: Path) -> None:
    many = str(10**6)  # more threads than any machine has processors: a busy machine
    assert environment_at_import(command, tmp_path, OMP_NUM_THREADS=many) == [BUSY["GOMP_SPINCOUNT"], many]
    spins, count = environment_at_import(command, tmp_path)
    assert spins in (QUIET.get("GOMP_SPINCOUNT", "None"), BUSY["GOMP_SPINCOUNT"])
    assert count == "None"


def test_settings_of_the_user_reach_torch_unchanged(tmp_path: Path) -> None:
    found = environment_at_import(MODULE, tmp_path, GOMP_SPINCOUNT="1000", OMP_NUM_THREADS="1")
    assert found == ["1000", "1"]


@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_a_user_who_sets_how_threads_wait_wins(name: str) -> None:
    environment = {name: "active", "OMP_NUM_THREADS": str(10**6)}
    choose_wait_policy(environment)
    assert environment == {name: "active", "OMP_NUM_THREADS": str(10**6)}


@pytest.mark.parametrize(("others", "settings"), [(0, QUIET), (6, QUIET), (7, BUSY), (100, BUSY)])
def test_a_machine_is_busy_if_threads_have_to_share_processors(others: int, settings: dict[str, str]) -> None:
    assert wait_settings(threads=2, others=others, processors=8) == settings


def test_the_number_of_threads_is_the_users_or_that_of_the_cores() -> None:
    assert thread_count({"OMP_NUM_THREADS": "3"}) == 3
    assert 1 <= thread_count({}) == thread_count({"OMP_NUM_THREADS": "some"}) <= (os.cpu_count() or 1)


def test_load_is_the_median_of_what_runs_beside_this_process(tmp_path: Path) -> None:
    file = tmp_path / "loadavg"
    file.write_text("9.05 8.03 7.01 4/160 12345\n")
    assert other_threads(file) == 3
    assert other_threads(tmp_path / "none") == 0


@pytest.mark.parametrize("text", ["", "0.00 0.00 0.00\n", "0.00 0.00 0.00 some/160 1\n", "0.00 0.00 0.00 0/0 0\n"])
def test_a_load_that_cannot_be_read_counts_as_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "loadavg").write_text(text)
    assert other_threads(tmp_path / "loadavg") == 0
    assert other_threads(tmp_path) == 0


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="the system reports no load")
def test_busy_programs_are_seen() -> None:
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        assert other_threads(samples=50, pause=0.01) >= 3
    finally:
        for program in programs:
            program.kill()
            program.wait()


def test_jobs_of_a_study_divide_the_cores_unless_the_user_set_a_number() -> None:
    (count,) = set(threads(1, {}).values())
    assert threads(1, {}) == {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    assert int(count) >= 1
    assert set(threads(10**6, {}).values()) == {"1"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        assert threads(2, {name: "7"}) == {}
