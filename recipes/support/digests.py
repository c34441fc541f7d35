"""Digests of words, numbers and tensors."""

import hashlib

import torch
from torch import Tensor


def digest_of(*parts: object) -> str:
    """Return the sha256 of words, numbers and tensors."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(text_line(part.dtype, tuple(part.shape)))
            digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(text_line(part))
    return digest.hexdigest()


def text_line(*words: object) -> bytes:
    """Return words and numbers as bytes, others if any of them is another."""
    return (repr(tuple(map(str, words))) + "\n").encode("utf-8", "surrogateescape")
