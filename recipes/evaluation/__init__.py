"""Evaluation of a run, of samples or of a folder of images.

| to find | look in |
| --- | --- |
| what `sitkit evaluate` does | `evaluate`, `config` |
| the metrics of a report | `compute_metrics`, `per_class` |
| features of images, and their statistics | `feature_extraction`, `feature_statistics` |
| the reference to compare with | `reference`, `write_reference` |
| samples from elsewhere | `sample_sets`, `image_sources` |
| the report | `html_report`, `text_table`, `manifest`, `compare` |
| likelihoods | `likelihood`, `bits_per_dim` |
"""
