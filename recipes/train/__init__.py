"""Training: the loop, its step, and checkpoints."""
