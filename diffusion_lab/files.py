"""Files that a reader finds whole: written beside the target, renamed into place; and hashes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

TEMPORARY = ".part"
"""Ending of files that are being written; a left-over one is removed by `remove_leftovers`."""


def write_atomically(
    path: str | Path, content: bytes | memoryview, *, synced: bool = False
) -> Path:
    """Write beside the target, then rename: nobody ever sees half a file.

    Args:
        path: Target; missing parent folders are made.
        content: The whole file.
        synced: Also wait until it would survive a power cut.

    Returns:
        `path` as a `Path`.

    Raises:
        OSError: The folder cannot be made or written; an older file stays, and nothing else is
            left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with open(part, "wb") as file:
            file.write(content)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, target)
        if synced:
            _sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files that a killed process left behind."""
    for part in folder.glob(f".*{TEMPORARY}"):
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system can sync folders."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)


def read_record(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; {} where the file is missing, torn or holds something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def user_cache_dir() -> Path:
    """Folder for what can be made again: `$XDG_CACHE_HOME/diffusion_lab` or in `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "diffusion_lab"


def sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, cached by its path, size and time of change."""
    return _hashed(path, "sha256", str(path.resolve()))


def md5(path: Path) -> str:
    """MD5 of a file in hexadecimal, cached alike; for files whose makers state no other hash."""
    return _hashed(path, "md5", f"md5 {path.resolve()}")


def _hashed(path: Path, kind: str, key: str) -> str:
    status = path.stat()
    stamp = [status.st_size, status.st_mtime_ns]
    cache_file = user_cache_dir() / "sha256.json"
    cache = read_record(cache_file)
    known = cache.get(key)
    if isinstance(known, list) and known[:2] == stamp and len(known) == 3:
        return str(known[2])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, kind).hexdigest()
    cache[key] = [*stamp, digest]
    with suppress(OSError):  # a home that cannot be written only costs hashing again
        write_atomically(cache_file, json.dumps(cache, indent=1).encode())
    return digest
