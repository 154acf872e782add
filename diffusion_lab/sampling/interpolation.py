"""Ways between two noises."""

from __future__ import annotations

import torch
from torch import Tensor


def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Spherical interpolation, each sample on its own (Shoemake 1985; Song et al., 2010.02502).

    The mean of two normal vectors has half their variance; on the arc between them the norm stays
    what a normal vector's is.

    Args:
        a: (B, *), returned at weight 0.
        b: (B, *), returned at weight 1.
        weight: In [0, 1].

    Returns:
        (B, *). Where a and b are parallel, linear interpolation.
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
