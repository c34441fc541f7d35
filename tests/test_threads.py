"""How threads wait is chosen before torch is imported, and a user's own setting wins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sitkit.recipes.cli.threads import WAIT_SETTINGS, choose_wait_policy, wait_settings
from sitkit.recipes.study.local_jobs import threads

PRINTS = """import os
print(*(os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")), flush=True)
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
def test_threads_are_passive_by_the_time_torch_is_imported(command: list[str], tmp_path: Path) -> None:
    assert environment_at_import(command, tmp_path) == ["PASSIVE", "None", "None"]


def test_settings_of_the_user_reach_torch_unchanged(tmp_path: Path) -> None:
    found = environment_at_import(MODULE, tmp_path, GOMP_SPINCOUNT="1000", OMP_NUM_THREADS="1")
    assert found == ["None", "1000", "1"]


@pytest.mark.parametrize("name", WAIT_SETTINGS)
def test_a_user_who_sets_how_threads_wait_wins(name: str) -> None:
    environment = {name: "active", "PATH": "/bin"}
    choose_wait_policy(environment)
    assert environment == {name: "active", "PATH": "/bin"}


def test_the_number_of_threads_is_left_alone() -> None:
    for environment in ({}, {"OMP_NUM_THREADS": "1"}, {"MKL_NUM_THREADS": "3"}):
        assert wait_settings(environment) == {"OMP_WAIT_POLICY": "PASSIVE"}
        choose_wait_policy(chosen := dict(environment))
        assert chosen == {**environment, "OMP_WAIT_POLICY": "PASSIVE"}


def test_jobs_of_a_study_divide_the_cores_unless_the_user_set_a_number() -> None:
    (count,) = set(threads(1, {}).values())
    assert threads(1, {}) == {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    assert int(count) >= 1
    assert set(threads(10**6, {}).values()) == {"1"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        assert threads(2, {name: "7"}) == {}
