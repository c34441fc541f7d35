"""The only package that imports the others: whole experiments, from a recipe to samples, numbers and pictures.

| to | look in |
| --- | --- |
| write or read a recipe | `recipe`, `reading`, `components`, `slots`, `presets/` |
| see what `auto` stands for | `intervals` |
| find what is decided by chance, and how | `randomness` |
| read or prepare data | `data/` |
| train | `train/`, `run`, `checkpoints`, `files` |
| sample | `sample/` |
| evaluate | `evaluate/`, `metrics` |
| play in the plane | `plane/` |
| use the command line | `cli` |
| see what a command does with memory that is freed | `heap` |

Nothing is imported here, so that the command line answers at once.
"""
