"""The noise of sampling: image k's numbers depend on (seed, k) alone; and ways between two."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.random import seeded_generator


class SampleNoise:
    """Noise of images first .. first + count - 1 of a seed, one CPU generator an image.

    Whatever the batch size, the device or the number of processes, image k gets the same numbers.
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


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Spherical interpolation, each sample on its own (Shoemake 1985; Song et al., 2010.02502).

    From a (B, *) at weight 0 to b at 1; linear where they are parallel. The mean of two normal
    vectors has half their variance; on the arc between them the norm stays that of a normal vector.
    """
    flat_a, flat_b = a.flatten(1).double(), b.flatten(1).double()
    norms = flat_a.norm(dim=1) * flat_b.norm(dim=1)
    cosine = ((flat_a * flat_b).sum(1) / norms.clamp_min(1e-300)).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    bent = sine > 1e-7
    safe = torch.where(bent, sine, torch.ones_like(sine))
    of_a = torch.where(bent, torch.sin((1 - weight) * angle) / safe, 1 - weight)
    of_b = torch.where(bent, torch.sin(weight * angle) / safe, weight)
    mixed = of_a[:, None] * flat_a + of_b[:, None] * flat_b
    return mixed.view_as(a).to(a.dtype)
