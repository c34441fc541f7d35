"""A process of `benchmarks/load.py`: it repeats one kind of work for as many seconds as each line of its input says."""

import json
import sys
import time
from collections.abc import Callable
from itertools import count

import torch
from shapes import Setup
from workloads import build

from sitkit.recipes.experiment.read_recipe import read_recipe
from sitkit.recipes.runs.data_record import open_data
from sitkit.recipes.support.allocator import keep_freed_memory
from sitkit.recipes.training.batches import Batches
from sitkit.recipes.training.process_group import ProcessGroup
from sitkit.recipes.training.state import TrainingState
from sitkit.recipes.training.step import TrainingStep


def digits_step() -> Callable[[], object]:
    """Return a training step of the preset `digits`, as `sitkit train` takes it."""
    keep_freed_memory()
    recipe, processes, numbers = read_recipe("digits"), ProcessGroup(device=torch.device("cpu")), count(1)
    split = open_data(recipe.data, None)
    state, batches = TrainingState(recipe, split, processes), Batches(recipe, split, processes)
    step = TrainingStep(recipe, split, state, processes)

    def run() -> None:
        number = next(numbers)
        step(number, batches(number))

    return run


def small_forward() -> Callable[[], object]:
    """Return a forward pass of SiT-S/2 for a batch of 8 latents of 32 x 32, those of images of 256 x 256."""
    return build(Setup("sitkit", "S", batch=8, threads=torch.get_num_threads())).forward


WORK = {"digits": digits_step, "S/2": small_forward}


def main() -> None:
    """Repeat the work named by the first argument, and print calls, seconds and processor seconds of each turn."""
    run = WORK[sys.argv[1]]()
    run()
    print("ready", flush=True)
    for line in sys.stdin:
        start, processor, calls = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < float(line):
            run()
            calls += 1
        seconds = time.perf_counter() - start
        print(json.dumps([calls, seconds, time.process_time() - processor]), flush=True)


if __name__ == "__main__":
    main()
