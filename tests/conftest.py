"""What all tests share."""

import torch
from hypothesis import settings

settings.register_profile("sitkit", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("sitkit")
torch.set_num_threads(2)
