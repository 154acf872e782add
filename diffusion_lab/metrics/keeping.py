"""Files of what takes long to compute and can be computed again.

A file's name holds a hash of all that went in, the file itself a hash of its content, so a stale
or damaged one is never used: it is made anew.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.files import user_cache_dir, write_atomically

DIGEST = 32  # bytes of SHA-256 behind the content of a file

Stored = dict[str, Any]
"""Tensors and plain values by name."""


def places(beside: Path) -> list[Path]:
    """Where files are kept: beside the data if that can be written, and in the user's cache.

    Args:
        beside: folder of the data. One marked read-only is left alone, also by a user who could
            write to it.
    """
    writable = beside.is_dir() and beside.stat().st_mode & 0o222
    return [beside, user_cache_dir()] if writable else [user_cache_dir()]


def kept(
    name: str, folders: Sequence[Path], make: Callable[[], Stored]
) -> tuple[Stored, Path | None]:
    """What is kept under a name: read from the first folder that has it, else made and written.

    Args:
        name: of the file, with a hash of all that `make` depends on.
        folders: where it may lie, the preferred one first.
        make: computes it.

    Returns:
        The content and its file; None in place of the file where no folder could be written.
    """
    stored, path = found(name, folders)
    if stored is not None:
        return stored, path
    stored = make()
    return stored, _write(stored, [folder / name for folder in folders])


def found(name: str, folders: Sequence[Path]) -> tuple[Stored | None, Path | None]:
    """What is kept under a name, and its file; None and None where it is not, or is not sound."""
    for folder in folders:
        stored = _read(folder / name)
        if stored is not None:
            return stored, folder / name
    return None, None


def digest_of(said: object, tensors: Sequence[Tensor]) -> str:
    """SHA-256 in hexadecimal of a description (by its ``str``) and of tensors on the CPU."""
    digest = hashlib.sha256(str(said).encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> Stored | None:
    """What `_write` wrote, or None where there is nothing, or nothing sound."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    stored: Stored = torch.load(io.BytesIO(payload), weights_only=True)
    return stored


def _write(stored: Stored, paths: Sequence[Path]) -> Path | None:
    """Write to the first place that can be written; readers never see half a file."""
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    payload = buffer.getvalue()
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, payload + hashlib.sha256(payload).digest())
        except OSError:
            continue
        return path
    return None
