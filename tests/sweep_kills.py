"""Kill a small run repeatedly at random moments, and compare it with uninterrupted runs.

    python tests/sweep_kills.py --kills 60 [--processes 2] [--parallel fsdp]

Some steps are skipped, because the loss of some samples is NaN. Exit code 1 if a bit differs or a checkpoint is lost.
"""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from launching import assert_same, command, finish, kill, start
from sitkit.recipes.runs.run import Run
from sitkit.recipes.storage import checkpoints
from sitkit.recipes.support.errors import UserError

TINY = ["backbone.depth=1", "train.batch=8", "log.every=1", "grid.every=40", "checkpoint.every=2", "checkpoint.keep=2"]
TINY += ["ema.widths=[0.1]", "train.flip=0.5", "checkpoint.milestone=50"]
TINY += ["objective.kind=faulty:Sometimes", "objective.numbers=[100, 101, 803, 1604]"]


def progress_of(run: Path) -> tuple[int, int, int, list[str]]:
    """Return the last logged step, the newest checkpoint's step, unfinished saves, and damaged checkpoints."""
    records = Run(run).metrics()
    found = checkpoints.list_checkpoints(run / "checkpoints")
    bad = []
    for checkpoint in found:
        try:
            checkpoints.verify(checkpoint)
        except UserError as problem:
            bad.append(str(problem))
    saved = checkpoints.step_of(found[-1]) if found else 0
    return (records[-1]["step"] if records else 0), saved, len([*run.glob("checkpoints/*.tmp")]), bad


def run_and_kill(words: list[str], run: Path, log: Path, delay: float) -> bool:
    """Start a run, kill it after its first new checkpoint (negative delay: its start), and return whether it ended."""
    before = progress_of(run)[1]
    process = start(words, log)
    started = time.monotonic()
    while delay >= 0 and process.poll() is None and time.monotonic() - started < 120:
        found = checkpoints.list_checkpoints(run / "checkpoints")
        if found and checkpoints.step_of(found[-1]) > before:
            break
        time.sleep(0.005)
    end = (time.monotonic() if delay >= 0 else started) + abs(delay)
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    ended = process.poll()
    kill(process)
    if ended not in (None, 0):
        raise SystemExit(f"exit code {ended}:\n{log.read_text()[-3000:]}")
    return ended == 0


def same(one: Path, other: Path) -> list[str]:
    """Return the differences between two finished runs."""
    differing = []
    try:
        assert_same(one, other)
    except AssertionError:
        differing.append("weights or records")
    if (one / "skipped.jsonl").read_text() != (other / "skipped.jsonl").read_text():
        differing.append("skipped steps")
    names = {file.relative_to(run) for run in (one, other) for file in [*run.glob("grids/*"), *run.glob("*/step-*")]}
    differing += [str(name) for name in sorted(names) if (one / name).exists() != (other / name).exists()]
    pictures = [name for name in names if name.suffix == ".png" and str(name) not in differing]
    return differing + [str(name) for name in pictures if (one / name).read_bytes() != (other / name).read_bytes()]


def main() -> None:
    """Sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--parallel", default="ddp")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--longest", type=float, default=0.5, help="seconds from a life's first checkpoint to its end")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="sweep-"))
    log, straight = root / "log", root / "straight"
    settings = [*TINY, f"compute.parallel={options.parallel}"]

    def words(run: Path) -> list[str]:
        return command(run, *settings, processes=options.processes, steps=options.steps)

    if finish(words(straight), log, timeout=600):
        raise SystemExit(log.read_text()[-3000:])
    print(f"left alone: {options.steps} steps, {len(Run(straight).skipped())} of them skipped", flush=True)
    kills, torn, faults, round_ = 0, 0, [], 0
    while kills < options.kills:
        round_ += 1
        run, newest, over = root / f"run{round_}", 0, False
        while not over:
            if kills < options.kills:
                early = chance.random() < 0.1
                delay = -chance.uniform(0.5, 10.0) if early else chance.uniform(0, options.longest)
                over = run_and_kill(words(run), run, log, delay)
            else:
                over = finish(words(run), log, timeout=600) == 0
                if not over:
                    raise SystemExit(log.read_text()[-3000:])
            step, saved, drafts, bad = progress_of(run)
            if not over:
                kills, torn = kills + 1, torn + (drafts > 0)
                where = f"run {round_}, kill {kills}: at step {step}, checkpoint {saved}"
                print(where + (", in a save" if drafts else ""), flush=True)
            faults += bad + ([f"run {round_}: checkpoint {newest} became {saved}"] if saved < newest else [])
            newest = saved
        differing = same(straight, run)
        faults += [f"run {round_}: differs in {one}" for one in differing]
        print(f"run {round_} is over: {'differs in ' + ', '.join(differing) if differing else 'not a bit differs'}")
    print(f"{kills} kills, {torn} of them in a save, in {round_} runs; {len(faults)} faults", *faults, sep="\n")
    if faults:
        raise SystemExit(f"the folders are left at: {root}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
