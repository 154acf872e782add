"""What a denoiser may be told or asked beside the image: its last estimate, a variance."""

from __future__ import annotations

import torch
from torch import Tensor


def with_estimate(x: Tensor, estimate: Tensor | None, self_conditioning: bool) -> Tensor:
    """The input of a network: x, and its own last x0-hat as further channels.

    Args:
        x: (B, C, *).
        estimate: (B, C, *) or None, which is 0.
        self_conditioning: Whether the network was built for it.

    Returns:
        (B, C, *), or (B, 2 C, *) with `self_conditioning`.

    Raises:
        ValueError: an estimate is given to a network built without.
    """
    if self_conditioning:
        return torch.cat([x, torch.zeros_like(x) if estimate is None else estimate], dim=1)
    if estimate is not None:
        raise ValueError("estimate: this network was built without self_conditioning")
    return x
