"""Picture files of any size as one tensor of bytes, decoded once and cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.errors import DataError
from diffusion_lab.files import write_atomically
from diffusion_lab.pixels import read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

HASH_BYTES = 32
"""Bytes of SHA-256 behind the pixels in a cached file."""
SHOWN = 2000
"""From how many images on progress is shown."""
NAMED = 5
"""Damaged files that an error names."""
THREADS = 4


def decoded(
    files: Sequence[Path], shape: Sequence[int], crop: int | None, cache: Path
) -> tuple[Tensor, str]:
    """The images of files, read from the cache, or decoded and cached.

    Args:
        files: Pictures of any format that Pillow reads.
        shape: `(C, H, W)`, C = 1 (grey) or 3 (colour).
        crop: See `decoded_picture`.
        cache: File of the pixels; its name must identify all that they depend on. A folder that
            cannot be written only costs decoding again.

    Returns:
        uint8 `(N, C, H, W)`, and the SHA-256 of these bytes.

    Raises:
        DataError: Files that cannot be read; names the first few and their number.
    """
    size = len(files) * prod(shape)
    content = _cached(cache, size)
    if content is None:
        content = np.empty(size + HASH_BYTES, np.uint8)
        pixels = content[:size].reshape(len(files), *shape)
        errors = _fill(pixels, files, partial(decoded_picture, shape=shape, crop=crop))
        if errors:
            raise DataError(_summary(errors, len(files)))
        content[size:] = np.frombuffer(hashlib.sha256(pixels.data).digest(), np.uint8)
        with suppress(OSError):
            write_atomically(cache, content.data)
    return torch.from_numpy(content[:size]).view(-1, *shape), bytes(content[size:]).hex()


def _cached(path: Path, size: int) -> np.ndarray | None:
    """Pixels and their hash; None where there is no file, or a damaged one."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    whole = len(content) == size + HASH_BYTES
    sound = whole and hashlib.sha256(content[:size].data).digest() == bytes(content[size:])
    return content if sound else None


def _summary(errors: Sequence[tuple[Path, str]], count: int) -> str:
    first = "; ".join(f"{path}: {reason}" for path, reason in errors[:NAMED])
    more = f" (and {len(errors) - NAMED} more)" if len(errors) > NAMED else ""
    return (
        f"{len(errors)} of {count} images cannot be used: {first}{more}. Repair these files or "
        "move them away"
    )


def decoded_picture(path: Path, shape: Sequence[int], crop: int | None = None) -> np.ndarray:
    """One file as bytes `(C, H, W)`.

    The picture (see `read_picture`) is cropped about its centre, to a square of side `crop`, if
    given, then to the shape's proportions, and resized with an antialiasing filter (Lanczos).

    Args:
        path: Of the file.
        shape: `(C, H, W)`, C = 1 (grey) or 3 (colour).
        crop: Side of the square, in pixels of the file.

    Raises:
        OSError: Not a picture, or a damaged one.
        ValueError: Smaller than `crop`, or pixels that `read_picture` rejects.
    """
    from PIL import Image

    channels, height, width = shape
    whole = read_picture(path, channels)
    if crop is not None:
        if min(whole.size) < crop:
            raise ValueError(f"{whole.width} x {whole.height} pixels, fewer than data.crop={crop}")
        whole = _centre(whole, crop, crop)
    scale = min(whole.width / width, whole.height / height)
    whole = _centre(whole, max(1, round(width * scale)), max(1, round(height * scale)))
    if whole.size != (width, height):
        whole = whole.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(whole).reshape(height, width, channels).transpose(2, 0, 1)


def _centre(whole: Image, width: int, height: int) -> Image:
    """The middle of a picture."""
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    if (whole.width, whole.height) == (width, height):
        return whole
    return whole.crop((left, top, left + width, top + height))


def _fill(
    pixels: np.ndarray, files: Sequence[Path], read: Callable[[Path], np.ndarray]
) -> list[tuple[Path, str]]:
    """Read files into an array, by a few threads; the files that failed and why."""
    from PIL import UnidentifiedImageError
    from rich.progress import Progress

    def attempt(number: int) -> tuple[Path, str] | None:
        try:
            pixels[number] = read(files[number])
        except UnidentifiedImageError:
            return files[number], "not a picture"
        except Exception as error:  # Pillow raises many kinds, each of them about the file
            return files[number], str(error) or type(error).__name__
        return None

    threads = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, Progress(disable=len(files) < SHOWN) as bar:
        task = bar.add_task(f"decoding {len(files):,} images, once", total=len(files))
        errors = []
        for error in pool.map(attempt, range(len(files))):
            errors += [] if error is None else [error]
            bar.advance(task)
    return errors
