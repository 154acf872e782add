"""A cache on disk of what takes long to compute and can be computed again.

The name of a file holds a hash of all inputs, the file itself a hash of its content, so a stale or
damaged file is never used: it is computed anew.
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

_SHA256_BYTES = 32

Stored = dict[str, Any]
"""Tensors and plain values by name."""


def cache_dirs(beside: Path) -> list[Path]:
    """The folders of the cache: `beside`, the data's own, if it can be written; and the user's.

    A folder that is marked read-only is left alone, even for a user who could write to it.
    """
    writable = beside.is_dir() and beside.stat().st_mode & 0o222
    return [beside, user_cache_dir()] if writable else [user_cache_dir()]


def cached(
    name: str, folders: Sequence[Path], compute: Callable[[], Stored]
) -> tuple[Stored, Path | None]:
    """Look a file up in all folders; compute and write it where none has it.

    Args:
        name: Of the file, with a hash of all that `compute` depends on.
        folders: The preferred one first.
        compute: Makes the content.

    Returns:
        The content and its file; None in place of the file where no folder could be written.
    """
    stored, path = lookup(name, folders)
    if stored is not None:
        return stored, path
    stored, buffer = compute(), io.BytesIO()
    torch.save(stored, buffer)
    content = buffer.getvalue()
    for folder in folders:
        try:
            path = write_atomically(folder / name, content + hashlib.sha256(content).digest())
        except OSError:
            continue
        return stored, path
    return stored, None


def lookup(name: str, folders: Sequence[Path]) -> tuple[Stored | None, Path | None]:
    """The content and the file of a name; None and None where no folder has an undamaged one."""
    for folder in folders:
        try:
            content = (folder / name).read_bytes()
        except OSError:
            continue
        payload, digest = content[:-_SHA256_BYTES], content[-_SHA256_BYTES:]
        if hashlib.sha256(payload).digest() == digest:
            return torch.load(io.BytesIO(payload), weights_only=True), folder / name
    return None, None


def digest_of(description: object, tensors: Sequence[Tensor]) -> str:
    """SHA-256 in hexadecimal of a description (by its `str`) and of tensors on the CPU."""
    digest = hashlib.sha256(str(description).encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
