"""Picture files of any size as one tensor of bytes, decoded once and kept."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

DIGEST = 32
"""Bytes of SHA-256 behind the pixels in a kept file."""
SHOWN = 2000
"""From how many images on progress is shown."""
TOLD = 5
"""Damaged files that an error names."""
THREADS = 4


class Pixels(NamedTuple):
    """Decoded images.

    Attributes:
        images: uint8 ``(N, C, H, W)``.
        sha256: of these bytes.
    """

    images: Tensor
    sha256: str


def decoded(files: Sequence[Path], shape: Sequence[int], crop: int | None, kept: Path) -> Pixels:
    """The images of files: read from where they are kept, else decoded and kept there.

    Args:
        files: pictures of any format that Pillow reads.
        shape: ``(C, H, W)``, C = 1 (grey) or 3 (colour).
        crop: see `decoded_picture`.
        kept: where the pixels are kept; its name must tell all that they depend on. A folder that
            cannot be written only costs decoding again.

    Raises:
        DataError: files that cannot be read; names the first few and their number.
    """
    known = _read(kept, (len(files), *shape))
    if known is not None:
        return known
    pixels = np.empty((len(files), *shape), np.uint8)
    faults = _fill(pixels, files, partial(decoded_picture, shape=shape, crop=crop))
    if faults:
        first = "; ".join(f"{path}: {reason}" for path, reason in faults[:TOLD])
        more = f" (and {len(faults) - TOLD} more)" if len(faults) > TOLD else ""
        raise DataError(
            f"{len(faults)} of {len(files)} images cannot be used: {first}{more}. Mend these "
            "files or move them away"
        )
    digest = hashlib.sha256(pixels.data).digest()
    _write(kept, pixels, digest)
    return Pixels(torch.from_numpy(pixels), digest.hex())


def decoded_picture(path: Path, shape: Sequence[int], crop: int | None = None) -> np.ndarray:
    """One file as bytes ``(C, H, W)``.

    The picture is turned as its EXIF says, laid on black where it is transparent, cut about its
    centre (to a square of side `crop`, if given, then to the shape's proportions), and resized
    with an antialiasing filter (Lanczos).

    Args:
        path: of the file.
        shape: ``(C, H, W)``, C = 1 (grey) or 3 (colour).
        crop: side of the square, in pixels of the file.

    Raises:
        OSError: no picture, or a damaged one.
        ValueError: smaller than `crop`.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    with Image.open(path) as opened:
        whole = ImageOps.exif_transpose(opened)
        opaque = _opaque(whole, "L" if channels == 1 else "RGB")
    if crop is not None:
        if min(opaque.size) < crop:
            raise ValueError(
                f"{opaque.width} x {opaque.height} pixels, fewer than data.crop={crop}"
            )
        opaque = _centre(opaque, crop, crop)
    scale = min(opaque.width / width, opaque.height / height)
    opaque = _centre(opaque, max(1, round(width * scale)), max(1, round(height * scale)))
    if opaque.size != (width, height):
        opaque = opaque.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(opaque).reshape(height, width, channels).transpose(2, 0, 1)


def _opaque(whole: Image, mode: str) -> Image:
    """A picture in grey or colour, without transparency and with 8 bits a channel."""
    from PIL import Image

    if whole.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        values = np.asarray(whole, dtype=np.float64) / 257
        whole = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if "A" in whole.mode or "transparency" in whole.info:
        coloured = whole.convert("RGBA")
        whole = Image.new("RGB", whole.size)
        whole.paste(coloured, mask=coloured.getchannel("A"))
    return whole.convert(mode)


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
            return files[number], "no picture"
        except Exception as error:  # Pillow raises many kinds, each of which is a fault of the file
            return files[number], str(error) or type(error).__name__
        return None

    threads = min(THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, Progress(disable=len(files) < SHOWN) as bar:
        task = bar.add_task(f"decoding {len(files):,} images, once", total=len(files))
        faults = []
        for fault in pool.map(attempt, range(len(files))):
            faults += [] if fault is None else [fault]
            bar.advance(task)
    return faults


def _read(path: Path, shape: tuple[int, ...]) -> Pixels | None:
    """What `_write` wrote, or None where there is nothing, or nothing sound."""
    try:
        content = np.fromfile(path, np.uint8)
    except OSError:
        return None
    if len(content) != prod(shape) + DIGEST:
        return None
    pixels, digest = content[:-DIGEST], bytes(content[-DIGEST:])
    if hashlib.sha256(pixels.data).digest() != digest:
        return None
    return Pixels(torch.from_numpy(pixels).view(shape), digest.hex())


def _write(path: Path, pixels: np.ndarray, digest: bytes) -> None:
    """Write beside the target, then rename; a folder that cannot be written is left alone."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            pixels.tofile(file)
            file.write(digest)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
