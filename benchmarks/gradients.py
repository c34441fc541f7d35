"""Peak memory and time of the gradient of samples with respect to the parameters of the network.

Each case runs in a separate process, and reports how much its peak resident memory exceeds that of the network alone.
The network is SiT-S/2 with random weights, on latents of 4 x 16 x 16; the solver is `Euler`.

    python benchmarks/gradients.py --steps 5 20
"""

import argparse
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sitkit.backbones import sit_s
from sitkit.samplers import Euler, initial_noise, sample, trajectory

CASES = ("no gradient", "all steps", "all steps, activation checkpointing", "last step")
BATCH = 8


def peak() -> float:
    """Return the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(case: str, steps: int) -> str:
    """Return one row of the table: the case, its increase of the peak memory, and its time."""
    torch.manual_seed(0)
    network = sit_s(input_size=16, in_channels=4, num_classes=0)
    noise, times = initial_noise(0, torch.arange(BATCH), (4, 16, 16)), torch.linspace(0, 1, steps + 1)
    sample(Euler(network), noise, times[:2])
    before, start = peak(), time.perf_counter()

    def checkpointed(x: Tensor, t: Tensor) -> Tensor:
        velocity: Tensor = checkpoint(network, x, t, use_reentrant=False)
        return velocity

    if case == "no gradient":
        sample(Euler(network), noise, times)
    else:
        velocity = checkpointed if case.endswith("checkpointing") else network
        first = -2 if case == "last step" else 0
        x = sample(Euler(network), noise, times[: first + 1]) if first else noise
        trajectory(Euler(velocity), x, times[first:])[-1].square().mean().backward()  # type: ignore[no-untyped-call]
    return f"| {steps} | {case} | {peak() - before:.0f} | {time.perf_counter() - start:.1f} |"


def main() -> None:
    """Measure every case in a separate process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--case", choices=CASES, help="measure this case in this process")
    options = parser.parse_args()
    if options.case:
        print(measure(options.case, options.steps[0]))
        return
    print("| steps | gradient | memory, MiB | time, s |\n| ---: | --- | ---: | ---: |")
    for steps in options.steps:
        for case in CASES:
            subprocess.run([sys.executable, __file__, "--case", case, "--steps", str(steps)], check=True)


if __name__ == "__main__":
    main()
