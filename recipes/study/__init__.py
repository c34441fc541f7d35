"""`sitkit study`: many recipes trained and measured from one file.

| to find | look in |
| --- | --- |
| the file of a study | `definition` |
| what is trained and measured | `layout`, `folder` |
| one training or one measurement | `measure_cell` |
| all of them, on this machine or by Slurm | `run`, `local_jobs`, `slurm` |
| results, tables and plots | `results`, `statistics`, `record`, `tables`, `plots`, `published` |
"""
