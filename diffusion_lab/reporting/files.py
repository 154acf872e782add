"""Writing a result so that a reader sees the old file or the new one, and reading it leniently."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: str | Path, content: bytes) -> Path:
    """Write ``content`` beside ``path`` and rename it into place.

    Args:
        path: the target; missing parent folders are made.
        content: the whole file.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        OSError: the folder cannot be made or written; no temporary file is left behind.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, target)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return target


def read_record(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; {} where the file is missing, torn or holds something else."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
