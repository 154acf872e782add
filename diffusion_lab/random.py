"""Random numbers bound to keys.

Nothing draws from a global generator: a stream is identified by its keys (a seed and an image's
number, or a seed and a training step), which are hashed together and never added, so that seed 0's
image 1 is not seed 1's image 0.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def seeded_generator(*keys: int | str) -> torch.Generator:
    """A CPU generator whose stream is a function of all keys, in their order.

    Args:
        keys: Integers or strings, e.g. ("train", seed, step).
    """
    digest = hashlib.sha256(repr(keys).encode()).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return generator


def permutation(n: int, *keys: int | str) -> Tensor:
    """A permutation of 0 .. n - 1 that depends on the keys alone."""
    return torch.randperm(n, generator=seeded_generator(*keys))


def coins(n: int, *keys: int | str) -> Tensor:
    """`n` fair coins, bool, that depend on the keys alone."""
    return torch.randint(2, (n,), generator=seeded_generator(*keys), dtype=torch.uint8).bool()
