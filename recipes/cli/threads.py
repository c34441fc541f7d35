"""How idle OpenMP threads wait. OpenMP reads the environment once, as torch loads it, so this comes before torch.

By default an idle thread of libgomp spins for some milliseconds. On a busy machine it takes the processor from the
threads that it waits for: a training step of a small network takes 5 to 20 times as long. A passive thread sleeps at
once. `docs/benchmarks/load.md` has the measurements.
"""

from collections.abc import Mapping, MutableMapping

WAIT_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables with which a user sets how threads wait: of OpenMP, of GNU's and of LLVM's or Intel's library."""


def wait_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set: none if the user has set how threads wait.

    The number of threads stays torch's, or the user's: with passive threads one thread is not faster on a busy
    machine, and results depend on the number of threads in their last bits.
    """
    return {} if any(name in environment for name in WAIT_SETTINGS) else {"OMP_WAIT_POLICY": "PASSIVE"}


def choose_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Let idle threads sleep, in the environment of this process and of those that it starts."""
    environment.update(wait_settings(environment))
