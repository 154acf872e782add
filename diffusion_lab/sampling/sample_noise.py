"""The noise of sampling: image k's numbers depend on (seed, k) alone."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.random import seeded_generator


class SampleNoise:
    """Noise of images first .. first + count - 1 of a seed, one CPU generator an image.

    Whatever the batch size, the device or the number of processes, image k gets the same numbers.

    Args:
        seed: The seed of the request.
        first: Number of the first image of this batch.
        count: Images in this batch, B.
    """

    def __init__(self, seed: int, first: int, count: int) -> None:
        self.generators = [seeded_generator("sample", seed, k) for k in range(first, first + count)]

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers (B, *), drawn in float32 and cast, so equal in every dtype."""
        self._check(len(like))
        drawn = [torch.randn(like.shape[1:], generator=g) for g in self.generators]
        return torch.stack(drawn).to(like)

    def uniform(self, n: int) -> Tensor:
        """One number an image, float64, shape (B,); n must be B."""
        self._check(n)
        drawn = [torch.rand((), generator=g, dtype=torch.float64) for g in self.generators]
        return torch.stack(drawn)

    def _check(self, n: int) -> None:
        if n != len(self.generators):
            raise ValueError(f"noise of {len(self.generators)} images was asked for {n}")
