"""The time of samplers without the network, relative to a forward pass of SiT-S/2."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from sitkit.backbones import sit_s
from sitkit.interpolants import Linear
from sitkit.samplers import SDE, EulerMaruyama, Field, Heun, Sigma, plan, sample

STEPS, BATCH, ROUNDS = 20, 8, 5


def seconds(run: Callable[[], object]) -> float:
    """Return the median seconds of a function, after a warm-up run."""
    run()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def free(x: Tensor, t: Tensor) -> Tensor:
    """Stand in for the network, at no cost."""
    return x


@torch.no_grad()
def main() -> None:
    """Print the seconds of a forward pass, and the time per step of each sampler without the network."""
    path, x = Linear(), torch.randn(BATCH, 4, 32, 32)
    network = sit_s(2, input_size=32, in_channels=4, num_classes=1000).eval()
    forward = seconds(lambda: network(x, torch.full((BATCH,), 0.5), torch.zeros(BATCH, dtype=torch.long)))
    print(f"SiT-S/2, batch {BATCH}, {torch.get_num_threads()} threads: {forward:.4f} s per forward pass")
    times = torch.linspace(0, 0.96, STEPS + 1)

    def planned(field: Field, w: Sigma | None) -> Tensor:
        made = plan(field, path, w=w, evaluations=STEPS)
        return sample(made.solver, x, made.times)

    runs: dict[str, Callable[[], Tensor]] = {
        "plan, ODE": lambda: planned(free, None),
        "plan, SDE": lambda: planned(free, Sigma(path)),
        "Heun": partial(sample, Heun(free), x, times),
        "Euler-Maruyama": partial(sample, EulerMaruyama(SDE(free, path, Sigma(path))), x, times),
    }
    for name, run in runs.items():
        own = seconds(run) / STEPS
        print(f"{name:16} {own * 1e3:.3f} ms per step, {own / forward:.2%} of a forward pass")


if __name__ == "__main__":
    main()
