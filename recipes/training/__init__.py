"""Training, from a recipe to a run's folder.

| to | look in |
| --- | --- |
| read it from top to bottom | `loop` |
| see what a step is made of, and what it does | `batches`, `step`, `state`, `averages` |
| see how many processes work together | `processes`, `sharding` |
| see what is written, and when | `saving`, `journal`, `meters`, `sinks` |
| know what it takes before it starts, or look at a step again | `estimate`, `replay` |
"""
