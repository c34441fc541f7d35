"""Sampling from a run.

| to find | look in |
| --- | --- |
| what `sitkit sample` does | `sample` |
| network, sampler and guidance put together | `generator`, `solve` |
| the sources that samples are made from | `sources` |
| the folder of samples, written by any number of processes | `sample_folder`, `write_folder` |
| class labels of samples | `labels` |
| what samples depend on | `manifest` |
| npz and PNG files (`sitkit export`) | `export` |
| image grids | `image_grid` |
"""
