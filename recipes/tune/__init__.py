"""`sitkit tune`: search the sampler settings of a trained run.

| to find | look in |
| --- | --- |
| what is varied, and the default values | `candidates`, `default_values` |
| the order of the search | `sampler_search`, `grid_search` |
| one measurement of a sampler | `benchmark`, `nfe_budget` |
| the KL bound of each w | `kl_bound` |
| tables, plots and files | `report`, `plots` |
| the command | `run` |
"""
