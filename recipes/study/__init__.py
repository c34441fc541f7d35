"""Experiments on experiments: a study of recipes from one file, and the choice of a sampler for a trained run.

| to | look in |
| --- | --- |
| read a study | `definition`, `settings` |
| know what is to be trained and measured | `cells`, `folder` |
| do one piece of it | `cell` |
| do all of it | `study`, `local`, `slurm` |
| read what came out | `results`, `statistics`, `tables`, `plots` |
"""
