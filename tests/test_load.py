"""The benchmark of threads under load: which measurements count, and what they are compared with."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import load
from load import ONE, Turn

pytestmark = pytest.mark.slow

BUSY = "sitkit, busy machine"


def turn(setting: str, number: int, seconds: float, others: float = 0.0, busy: bool = False) -> Turn:
    return Turn("digits", busy, setting, number, seconds, 2 * seconds, others)


def test_noisy_quiet_turns_do_not_count_and_ratios_are_taken_round_by_round() -> None:
    turns = [turn(ONE, 0, 1.0), turn(ONE, 1, 2.0), turn(ONE, 2, 3.0, others=1.0)]
    turns += [turn(BUSY, 0, 0.5), turn(BUSY, 1, 4.0), turn(BUSY, 2, 30.0)]
    turns += [turn(BUSY, 0, 7.0, others=1.0, busy=True), turn(ONE, 0, 14.0, busy=True)]
    rows = {(row["busy"], row["setting"]): row for row in load.summarise(turns, noise=0.1)}
    assert rows[False, ONE]["turns"] == 2
    assert rows[False, ONE]["seconds"][0] == pytest.approx(1.5)
    assert rows[False, BUSY]["ratio"] == pytest.approx([1.25, 0.875, 1.625])  # .5 and 2
    assert rows[True, BUSY]["ratio"] == [0.5, 0.5, 0.5]
    assert (False, "torch's defaults") not in rows


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it reads /proc")
def test_a_busy_program_is_seen_and_ends() -> None:
    with load.busy_program() as pid:
        before, all_before = load.process_ticks(pid), load.machine_ticks()
        while load.process_ticks(pid) < before + 5:
            pass
        assert load.machine_ticks() - all_before >= 4  # rounded, as those of the process are
    assert not Path(f"/proc/{pid}").exists()
