"""Peak memory of sampling, export and evaluation for increasing numbers of samples.

Each command runs in a separate process, and the system reports its peak resident memory. There are two runs: the preset
`digits`, trained for a few steps because weights do not matter here, and the same with the latents of a small random
autoencoder, which decodes the samples.

    python benchmarks/memory.py --out runs/memory --counts 1000 20000
"""

import argparse
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import torch

TRAINED = [
    "--set",
    "train.steps=4",
    "--set",
    "checkpoint.every=4",
    "--set",
    "grid.every=100",
    "--set",
    "sampler.steps=2",
]
MIB = 2**20


def peak(*words: object) -> float:
    """Return the peak memory of a `sitkit` command in MiB.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "sitkit.recipes", *map(str, words)]
    pid = os.posix_spawn(command[0], command, {**os.environ, "OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB


def autoencoder(folder: Path) -> Path:
    """Write a small random autoencoder: 3 channels to 2, half the side length."""
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    widths = {"block_out_channels": (16, 32), "latent_channels": 2, "norm_num_groups": 2, "layers_per_block": 1}
    import_module("diffusers").AutoencoderKL(**kinds, **widths).save_pretrained(folder)
    return folder


def runs(out: Path) -> dict[str, Path]:
    """Train both runs, or resume them, and return their folders."""
    pixels, latents = out / "pixels", out / "latents"
    peak("train", "digits", "--out", pixels, *TRAINED)
    vae = out / "vae"
    if not vae.exists():
        autoencoder(vae)
    cache = out / "cache"
    peak("encode", '{kind = "digits", split = 0.5}', "--out", cache, "--size", 8, "--vae", vae)
    data = ["data.kind=latents", f"data.path={cache}", f"data.heldout={cache / 'heldout'}"]
    peak("train", "digits", "--out", latents, *TRAINED, *(word for one in data for word in ("--set", one)))
    return {"digits": pixels, "digits by a small autoencoder": latents}


def measure(run: Path, out: Path, count: int) -> dict[str, float]:
    """Return the peak memory of the commands that generate, export and evaluate `count` samples."""
    samples = out / f"{run.name}-{count}"
    return {
        "sample": peak("sample", run, "--samples", count, "--out", samples),
        "export": peak("export", samples, "--out", samples.with_suffix(".npz")),
        "evaluate": peak("evaluate", samples, "--set", "evaluation.features=pixels"),
    }


def main() -> None:
    """Measure, print a table, and write the values to `memory.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20_000])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, run in runs(options.out).items():
        for count in options.counts:
            found.setdefault(name, {})[count] = measure(run, options.out, count)
            (options.out / "memory.json").write_text(json.dumps(found, indent=2))
    print("| run | command |" + "".join(f" {count} samples, MiB |" for count in options.counts))
    print("| --- | --- |" + " ---: |" * len(options.counts))
    for name, by_count in found.items():
        for command in by_count[options.counts[0]]:
            cells = "".join(f" {by_count[count][command]:.0f} |" for count in options.counts)
            print(f"| {name} | {command} |{cells}")


if __name__ == "__main__":
    main()
