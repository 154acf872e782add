"""Picture files as 8 bits a channel, and these as the numbers in [-1, 1] that models see.

0 is -1, 255 is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def from_bytes(pixels: Tensor) -> Tensor:
    """Pixel values 0 .. 255, of any dtype and shape, as float32 in [-1, 1], on their device."""
    return pixels.to(torch.float32, copy=True).mul_(2 / 255).sub_(1)


def to_pixel_values(images: Tensor) -> Tensor:
    """Images in [-1, 1], rounded to whole pixel values 0 .. 255 of their float dtype.

    Values outside are clipped; NaN stays NaN.
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


def read_picture(path: str | Path, channels: int) -> Image:
    """A picture file with 8 bits a channel, grey (1) or red, green and blue (3).

    It is rotated as its EXIF says and laid on black where it is transparent. Grey values of 16 bits
    and floats in [0, 1] are scaled to 0 .. 255.

    Raises:
        OSError: There is no such file, it is no picture, or a damaged one.
        ValueError: Pixels of another range than their mode has, or too many of them.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            whole = _eight_bits(ImageOps.exif_transpose(opened))
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    except SyntaxError as error:  # a damaged PNG
        raise OSError(str(error)) from None
    if "A" in whole.mode or "transparency" in whole.info:
        coloured = whole.convert("RGBA")
        whole = Image.new("RGB", whole.size)
        whole.paste(coloured, mask=coloured.getchannel("A"))
    return whole.convert("L" if channels == 1 else "RGB")


def _eight_bits(picture: Image) -> Image:
    """Modes that Pillow would clip at 255 (I, I;16) or at 1 (F) scaled to 8 bits, others as is."""
    import numpy as np
    from PIL import Image

    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, dtype=np.float64)
    top = 1.0 if picture.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= top):  # NaN neither
        raise ValueError(
            f"pixels of mode {picture.mode} from {values.min():g} to {values.max():g} must be "
            f"in 0 .. {top:g}; save the picture with 8 bits a channel"
        )
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))
