"""Grey values of 8 bits and the numbers in [-1, 1] that models see: 0 is -1, 255 is 1."""

from __future__ import annotations

from collections.abc import Sequence

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


def refuse_shape(shape: Sequence[int]) -> None:
    """Refuse samples of a shape that cannot be drawn.

    Raises:
        ValueError: neither (1 or 3, H, W) nor (2,).
    """
    shape = tuple(shape)
    if shape != (2,) and not (len(shape) == 3 and shape[0] in (1, 3)):
        raise ValueError(
            f"shape={shape}: images (1, H, W) or (3, H, W) and points (2,) can be drawn; for "
            "other data switch the pictures off (null in place of the callback or the page)"
        )
