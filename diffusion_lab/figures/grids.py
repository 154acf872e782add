"""Many small images on one sheet, with words beside them.

Images are tensors (N, C, H, W) with values in [-1, 1] and C = 1 (grey) or 3 (colour). Values
outside are clipped for display only; a pixel that is not finite is drawn in red, because a sampler
that diverged should be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_lab.figures.pictures import TILES, save_picture
from diffusion_lab.pixels import to_pixel_values

BACKGROUND, INK = 24, 200
NOT_FINITE = (255, 0, 0)
FONT_SIZE, CAPTION_HEIGHT, SPACE = 11, 14, 6


def to_pixels(images: Tensor) -> np.ndarray:
    """Turn images into bytes: uint8 (N, H, W) for finite grey images, else (N, H, W, 3).

    Raises:
        ValueError: The shape is not (N, 1 or 3, H, W).
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images={tuple(images.shape)}: an image sheet needs (N, 1, H, W) or (N, 3, H, W); "
            "draw points in the plane with diffusion_lab.figures.scatter.scatter_image"
        )
    values = images.detach().float().cpu().movedim(1, -1)
    broken = ~values.isfinite().all(-1).numpy()
    pixels = to_pixel_values(values.nan_to_num()).byte().numpy()
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
        columns: Images a row, at least 1; fewer images than that make one shorter row.
        scale: Side of the square that one image pixel becomes, at least 1.
        labels: N captions, drawn under the images; None for none.
        gap: Pixels between images and around them.

    Returns:
        A picture in mode "L" (grey) or "RGB" that knows its tiles, see `pictures.tiles`.

    Raises:
        ValueError: No images, a size below 1, or a number of labels other than N.
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
        texts = labels.tolist() if isinstance(labels, Tensor) else labels
        for k, text in enumerate(texts):
            middle = gap + (k % columns) * across + width // 2
            _write(picture, (middle, (k // columns + 1) * down), str(text), "ms")
    return picture


def save_grid(
    path: str | Path,
    images: Tensor,
    columns: int = 10,
    scale: int = 2,
    labels: Sequence[object] | Tensor | None = None,
) -> Path:
    """Write `image_grid(...)` to `path` as PNG, atomically; arguments and errors as there."""
    return save_picture(path, image_grid(images, columns, scale, labels))


def class_columns(num_classes: int | None) -> int:
    """Columns of a grid of images whose classes take turns, so that a column holds one class.

    Few classes are repeated in a row (three: 9 columns); more than 20 get 20 columns, whatever
    they hold; without classes (None) there are 10.
    """
    if num_classes is None:
        return 10
    return min(20, num_classes * max(1, 10 // num_classes))


def tiled(pictures: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Pictures row by row, each in a cell of the largest one's size."""
    across = max(picture.width for picture in pictures) + gap
    down = max(picture.height for picture in pictures) + gap
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = _blank((columns * across + gap, rows * down + gap), pictures)
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (gap + (k % columns) * across, gap + (k // columns) * down))
    return sheet


def with_margins(
    picture: Image.Image,
    above: Sequence[tuple[float, str]] = (),
    left: Sequence[tuple[float, str]] = (),
) -> Image.Image:
    """Write words above and to the left of a picture, on margins that are added.

    Args:
        picture: Any, in mode "L" or "RGB".
        above: (x of the column's centre, words); where they would touch each other only every
            second, third ... is written.
        left: (y of the row's centre, words).
    """
    font = ImageFont.load_default(size=FONT_SIZE)
    margin = max((round(font.getlength(text)) for _, text in left), default=-2 * SPACE) + 2 * SPACE
    top = CAPTION_HEIGHT if above else 0
    sheet = _blank((picture.width + margin, picture.height + top), [picture])
    sheet.paste(picture, (margin, top))
    for y, text in left:
        _write(sheet, (margin - SPACE, top + y), text, "rm")
    stride = 1
    if len(above) > 1:
        widest = max(font.getlength(text) for _, text in above) + SPACE
        stride = max(1, -int(-widest // (above[1][0] - above[0][0])))
    for x, text in above[::stride]:
        _write(sheet, (margin + x, top - 2), text, "ms")
    return sheet


def titled(picture: Image.Image, title: str) -> Image.Image:
    """A picture with words above its middle."""
    return with_margins(picture, above=[(picture.width / 2, title)])


def _blank(size: tuple[int, int], pictures: Sequence[Image.Image]) -> Image.Image:
    """An empty sheet for pictures, grey where all of them are."""
    grey = all(picture.mode == "L" for picture in pictures)
    return Image.new("L" if grey else "RGB", size, BACKGROUND if grey else (BACKGROUND,) * 3)


def _write(picture: Image.Image, where: tuple[float, float], text: str, anchor: str) -> None:
    ink = INK if picture.mode == "L" else (INK,) * 3
    font = ImageFont.load_default(size=FONT_SIZE)
    ImageDraw.Draw(picture).text(where, text, fill=ink, font=font, anchor=anchor)
