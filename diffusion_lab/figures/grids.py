"""Many small images on one sheet.

Images are tensors (N, C, H, W) with values in [-1, 1] and C = 1 (grey) or 3 (colour). Values
outside are clipped for display only; a pixel that is not finite is drawn in red, because a sampler
that diverged should be seen.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffusion_lab.files import write_atomically
from diffusion_lab.pixels import to_grey

BACKGROUND = 24
INK = 200
CAPTION_HEIGHT = 14
NOT_FINITE = (255, 0, 0)
TILES = "tiles"
"""Key in a picture's `info`, and in its file, of "width height gap caption columns count"."""


def to_pixels(images: Tensor) -> np.ndarray:
    """Turn images into bytes.

    Args:
        images: (N, C, H, W), C = 1 or 3, [-1, 1].

    Returns:
        uint8 array (N, H, W) for finite grey images, else (N, H, W, 3).

    Raises:
        ValueError: the shape is not (N, 1 or 3, H, W).
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images={tuple(images.shape)}: an image sheet needs (N, 1, H, W) or (N, 3, H, W); "
            "draw points in the plane with diffusion_lab.figures.clouds.scatter_image"
        )
    values = images.detach().float().cpu().movedim(1, -1)
    broken = ~values.isfinite().all(-1).numpy()
    pixels = to_grey(values.nan_to_num()).byte().numpy()
    if images.shape[1] == 1 and not broken.any():
        return pixels[..., 0]
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3)).copy()
    pixels[broken] = NOT_FINITE
    return pixels


def image_grid(
    images: Tensor,
    columns: int = 10,
    scale: int = 2,
    labels: Sequence[object] | Tensor | None = None,
    gap: int = 2,
) -> Image.Image:
    """Lay images out row by row.

    Args:
        images: (N, C, H, W), C = 1 or 3, [-1, 1], N >= 1.
        columns: images a row, at least 1; fewer images than that make one shorter row.
        scale: side of the square that one image pixel becomes, at least 1.
        labels: N captions, drawn under the images; None for none.
        gap: pixels between images and around them.

    Returns:
        A picture in mode "L" (grey) or "RGB" that knows its tiles, see ``tiles``.

    Raises:
        ValueError: no images, a size below 1, or a number of labels other than N.
    """
    for name, value in (("columns", columns), ("scale", scale)):
        if value < 1:
            raise ValueError(f"{name}={value}: give at least 1")
    if len(images) == 0:
        raise ValueError("images is empty: a grid needs at least one image")
    if labels is not None and len(labels) != len(images):
        raise ValueError(
            f"labels has {len(labels)} entries for {len(images)} images: give one each"
        )
    pixels = to_pixels(images).repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = pixels.shape[1:3]
    caption = 0 if labels is None else CAPTION_HEIGHT
    columns = min(columns, len(pixels))
    rows = -(-len(pixels) // columns)
    down, across = height + caption + gap, width + gap
    tiles = np.full((rows * columns, down, across, *pixels.shape[3:]), BACKGROUND, dtype=np.uint8)
    tiles[: len(pixels), gap : gap + height, gap:] = pixels
    sheet = rearrange(tiles, "(rows columns) h w ... -> (rows h) (columns w) ...", rows=rows)
    margin = [(0, gap), (0, gap), (0, 0)][: sheet.ndim]
    picture = Image.fromarray(np.pad(sheet, margin, constant_values=BACKGROUND))
    picture.info[TILES] = f"{width} {height} {gap} {caption} {columns} {len(pixels)}"
    if labels is not None:
        corners = [
            (gap + (k % columns) * across + width // 2, (k // columns + 1) * down)
            for k in range(len(pixels))
        ]
        _write_captions(picture, corners, labels)
    return picture


def class_columns(num_classes: int | None) -> int:
    """Columns of a grid of images whose classes take turns, so that a column holds one class.

    Few classes are repeated in a row (three: 9 columns); more than 20 get 20 columns, whatever
    they hold; without classes (None) there are 10.
    """
    if num_classes is None:
        return 10
    return min(20, num_classes * max(1, 10 // num_classes))


def _write_captions(
    picture: Image.Image, centres: list[tuple[int, int]], labels: Sequence[object] | Tensor
) -> None:
    """Draw one caption a tile; ``centres`` are the points at the middle of their lower edges."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=11)
    ink = INK if picture.mode == "L" else (INK, INK, INK)
    texts = labels.tolist() if isinstance(labels, Tensor) else labels
    for centre, text in zip(centres, texts, strict=True):
        draw.text(centre, str(text), fill=ink, font=font, anchor="ms")


def save_grid(
    path: str | Path,
    images: Tensor,
    columns: int = 10,
    scale: int = 2,
    labels: Sequence[object] | Tensor | None = None,
) -> Path:
    """Write ``image_grid(...)`` to ``path`` as PNG, atomically; arguments and errors as there."""
    return save_picture(path, image_grid(images, columns, scale, labels))


def save_picture(path: str | Path, picture: Image.Image) -> Path:
    """Write any picture to ``path`` as PNG, atomically; a grid's file knows its tiles."""
    buffer = io.BytesIO()
    told = PngInfo()
    if TILES in picture.info:
        told.add_text(TILES, picture.info[TILES])
    picture.save(buffer, format="PNG", optimize=True, pnginfo=told)
    return write_atomically(path, buffer.getvalue())


def tiles(picture: Image.Image, count: int) -> list[Image.Image]:
    """The first images of a grid, cut out of its picture as it was drawn or read from its file.

    Args:
        picture: of ``image_grid``.
        count: how many; all there are where that is fewer.

    Raises:
        ValueError: a picture that does not say where its tiles are.
    """
    try:
        numbers = [int(part) for part in picture.info[TILES].split()]
        width, height, gap, caption, columns, there = numbers
    except (KeyError, ValueError, AttributeError):
        raise ValueError(
            "a picture that does not say where its tiles are (not one of image_grid, or of an "
            "earlier version): draw it again"
        ) from None
    across, down = width + gap, height + caption + gap
    corners = [
        (gap + (k % columns) * across, gap + (k // columns) * down)
        for k in range(min(count, there))
    ]
    return [picture.crop((x, y, x + width, y + height)) for x, y in corners]
