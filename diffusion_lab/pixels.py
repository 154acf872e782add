"""Grey values of 8 bits and the numbers in [-1, 1] that models see: 0 is -1, 255 is 1."""

from __future__ import annotations

import torch
from torch import Tensor


def from_bytes(pixels: Tensor) -> Tensor:
    """Grey values 0 .. 255, of any dtype and shape, as float32 in [-1, 1], on their device."""
    return pixels.to(torch.float32, copy=True).mul_(2 / 255).sub_(1)


def to_grey(images: Tensor) -> Tensor:
    """Whole grey values 0 .. 255 nearest to images in [-1, 1], in their float dtype.

    What lies outside is clipped; NaN stays NaN.
    """
    return images.clamp(-1, 1).add(1).mul(127.5).round()
