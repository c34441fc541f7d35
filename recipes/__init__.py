"""Complete experiments: the only package that imports the four libraries.

Folders, from the bottom up. Each imports only from those above it in this table.

| folder | what it holds |
| --- | --- |
| `support/` | errors, progress, random streams, digests, trust in code that files name |
| `storage/` | atomic writes, arrays, checkpoints, work partitioned over processes by files |
| `data/` | data sets; `data/latents/`: the autoencoder, latents of `sitkit encode`, of LightningDiT and EDM2 |
| `experiment/` | the recipe, its components and slots, presets, TOML and `--set`, what `auto` stands for |
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

Nothing is imported here, so that the command line answers at once.
"""
