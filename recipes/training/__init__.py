"""Training, from a recipe to the folder of a run. Read `loop` first.

| to find | look in |
| --- | --- |
| the loop | `loop` |
| the loss, the gradient, the update of the weights | `step` |
| the learning-rate schedule | `learning_rate` |
| the images, noise and times of a step | `batches` |
| weights, optimiser and EMA, and how they are saved | `state`, `checkpoint_writer` |
| DDP and FSDP2 | `process_group`, `fsdp` |
| metrics, TensorBoard, wandb | `metrics_logger`, `meters`, `sinks` |
| image grids during training | `sample_grid` |
| pretrained weights | `initial_weights` |
| size and memory before training (`--dry-run`) | `cost_estimate`, `data_summary` |
| one step repeated (`sitkit replay`) | `replay` |
"""
