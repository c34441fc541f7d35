"""Experiments on experiments: a study of recipes from one file, and the choice of a sampler for a trained run.

| to | look in |
| --- | --- |
| read a study | `definition`, `settings` |
| know what is to be trained and measured | `cells`, `folder` |
| do one piece of it | `cell` |
| do all of it | `study`, `local`, `slurm` |
| read what came out | `results`, `statistics`, `tables`, `plots` |
| choose a sampler for a run | `tuning`, `tune`, `chosen` |
| know what is tried, and in which order | `candidates`, `usual`, `search` |
| measure it within its calls | `bench`, `budget` |
| know what theory says of a w | `bound` |
| read what came out of that | `tune_page`, `tune_plots` |
"""
