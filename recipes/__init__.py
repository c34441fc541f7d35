"""Complete experiments: the only package that imports the four libraries.

Folders, from the bottom up. Each imports only from those above it in this table.

| folder | what it holds |
| --- | --- |
| `support/` | errors, progress, random streams, digests, trust in code that files name |
| `storage/` | atomic writes, arrays, checkpoints, work partitioned over processes by files |
| `data/` | data sets; `data/latents/`: the autoencoder, latents of `sitkit encode`, of LightningDiT and EDM2 |
| `experiment/` | the recipe, its components and slots, presets and samplers, TOML, `--set`, what `auto` stands for |
| `runs/` | the folder of a run, the record of its data, resuming |
| `network/` | building, precision and compilation, EMA weights, conversion of released weights |
| `features/` | extractors of features of images |
| `metrics/` | FID, KID, precision and recall, Inception score, on any features |
| `plane/` | the 2D demos |
| `sampling/` | `sitkit sample` and `sitkit export` |
| `evaluation/` | `sitkit evaluate`, `reference`, `compare` and `likelihood` |
| `training/` | `sitkit train` and `sitkit replay` |
| `study/` | `sitkit study` |
| `tune/` | `sitkit tune` |
| `cli/` | the command line |

In Python, three lines do what the command line does:

    from sitkit.recipes import load_recipe, train
    run = train(load_recipe("digits"), "runs/digits")
    images = run.sample(16, seed=0)

`load_run("runs/digits")` loads a run again. Its `velocity(labels)` and `path` fit every solver of `sitkit.samplers`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.evaluate_run import evaluate as evaluate
    from .experiment.load_recipe import load_recipe as load_recipe
    from .sampling.load_run import load_run as load_run
    from .sampling.load_run import sample as sample
    from .sampling.trained_run import TrainedRun as TrainedRun
    from .support.errors import UserError as UserError
    from .training.train_recipe import train as train

_EXPORTED = {
    "TrainedRun": "sampling.trained_run",
    "UserError": "support.errors",
    "evaluate": "evaluation.evaluate_run",
    "load_recipe": "experiment.load_recipe",
    "load_run": "sampling.load_run",
    "sample": "sampling.load_run",
    "train": "training.train_recipe",
}
__all__ = [*_EXPORTED]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a name on its first use: torch takes seconds, and the command line answers at once."""
    if name not in _EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_EXPORTED[name]}", __name__), name)


def __dir__() -> list[str]:
    """Return the names that this module has, and those that it imports on their first use."""
    return sorted({*globals(), *__all__})
