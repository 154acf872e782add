"""Randomness as an argument.

Nothing in `diffusion` or `sampling` draws from a global generator: noise is handed in, bound to
the keys that identify it (a seed and an image's number, or a seed and a training step). Keys are
hashed together and never added, so seed 0's image 1 is not seed 1's image 0.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Noise(Protocol):
    """A source of random numbers bound to its keys; each call goes on where the last ended."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of `like`'s shape (B, *), dtype and device."""
        ...

    def uniform(self, n: int) -> Tensor:
        """`n` numbers in [0, 1): float64 on the CPU, shape (n,).

        `n` must be the batch size; for two numbers per row, call twice.
        """
        ...
