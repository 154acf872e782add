"""From a plot to a picture, and from pictures to files: PNG, and animations as GIF or WebP."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_lab.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = {".gif": "GIF", ".webp": "WEBP"}
TILES = "tiles"
"""Key in a picture's `info`, and in its file, of "width height gap caption columns count"."""


def rendered(figure: Figure) -> Image.Image:
    """A matplotlib figure as an RGB picture, drawn without a display."""
    return Image.open(io.BytesIO(rendered_png(figure))).convert("RGB")


def rendered_png(figure: Figure) -> bytes:
    """A matplotlib figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def tiles(picture: Image.Image, count: int) -> list[Image.Image]:
    """The first `count` images of a grid, or all, cut out of its picture as drawn or as read.

    Raises:
        ValueError: The picture does not say where its tiles are.
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


def save_picture(path: str | Path, picture: Image.Image) -> Path:
    """Write a picture as PNG, atomically; the file of a grid knows its tiles."""
    buffer = io.BytesIO()
    info = PngInfo()
    if TILES in picture.info:
        info.add_text(TILES, picture.info[TILES])
    picture.save(buffer, format="PNG", optimize=True, pnginfo=info)
    return write_atomically(path, buffer.getvalue())


def save_animation(
    path: str | Path, pictures: Iterable[Image.Image], frame_ms: int = 80, hold_ms: int = 1600
) -> Path:
    """Write pictures of one size as an animation that plays for ever, atomically.

    Args:
        path: Ends in .gif or .webp (smaller, exact).
        pictures: The frames.
        frame_ms: How long a frame stays, in milliseconds.
        hold_ms: How long the last one stays.

    Raises:
        ValueError: Another ending, or no pictures.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"path={str(path)!r}: an animation ends in {' or '.join(FORMATS)}")
    pictures = list(pictures)
    if not pictures:
        raise ValueError("frames is empty: an animation needs at least one")
    mode = "RGB" if any(picture.mode == "RGB" for picture in pictures) else "L"
    first, *rest = [picture.convert(mode) for picture in pictures]
    buffer = io.BytesIO()
    first.save(
        buffer,
        format=FORMATS[suffix],
        save_all=True,
        append_images=rest,
        duration=[frame_ms] * len(rest) + [hold_ms],
        loop=0,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    return write_atomically(path, buffer.getvalue())
