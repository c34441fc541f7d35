"""The only package that imports the others: whole experiments, from a recipe to samples, numbers and pictures.

| to | look in |
| --- | --- |
| write or read a recipe | `recipe`, `reading`, `components`, `slots`, `presets/` |
| see what `auto` stands for | `intervals` |
| train | `train`, `randomness`, `run`, `checkpoints` |
| sample | `generate`, `pictures` |
| evaluate | `evaluate`, `metrics`, `report` |
| play in the plane | `plane`, `targets` |
| use the command line | `cli` |

Nothing is imported here, so that the command line answers at once.
"""
