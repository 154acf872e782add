"""Short films of pictures: GIF, or WebP (smaller, exact)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from PIL.Image import Image

from diffusion_lab.files import write_atomically

FORMATS = {".gif": "GIF", ".webp": "WEBP"}


def save_film(
    path: str | Path, pictures: Iterable[Image], frame_ms: int = 80, hold_ms: int = 1600
) -> Path:
    """Write pictures as a film that plays for ever.

    Args:
        path: ends in .gif or .webp.
        pictures: of one size.
        frame_ms: how long a picture stays, in milliseconds.
        hold_ms: how long the last one stays.

    Returns:
        ``path`` as a ``Path``; the file is written atomically.

    Raises:
        ValueError: another ending, or no pictures.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"path={str(path)!r}: an animation ends in {' or '.join(FORMATS)}")
    pictures = list(pictures)
    if not pictures:
        raise ValueError("frames is empty: an animation needs at least one")
    buffer = io.BytesIO()
    durations = [frame_ms] * (len(pictures) - 1) + [hold_ms]
    mode = "RGB" if any(picture.mode == "RGB" for picture in pictures) else "L"
    first, *rest = [picture.convert(mode) for picture in pictures]
    first.save(
        buffer,
        format=FORMATS[suffix],
        save_all=True,
        append_images=rest,
        duration=durations,
        loop=0,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    return write_atomically(path, buffer.getvalue())
