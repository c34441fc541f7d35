"""SHA-256 digests of texts, numbers and tensors."""

import hashlib

import torch
from torch import Tensor


def digest_of(*parts: object) -> str:
    """Return the SHA-256 digest of texts, numbers and tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(text_line(part.dtype, tuple(part.shape)))
            digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(text_line(part))
    return digest.hexdigest()


def text_line(*values: object) -> bytes:
    """Return texts and numbers as one line of bytes, different for different values."""
    return (repr(tuple(map(str, values))) + "\n").encode("utf-8", "surrogateescape")
