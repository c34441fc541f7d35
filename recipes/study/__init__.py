"""`sitkit study`: train and evaluate many recipes from one file.

| to find | look in |
| --- | --- |
| the file of a study | `study_file` |
| its networks and cells, and the folder where they are | `grid`, `study_folder` |
| one training or one evaluation | `parts` |
| all of them, on this machine or by Slurm | `run`, `local_jobs`, `slurm` |
| results, tables and plots | `results`, `statistics`, `published`, `record`, `tables`, `plots` |
"""
