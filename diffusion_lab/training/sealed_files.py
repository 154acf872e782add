"""Files that say whether they are whole, written so that a reader never sees half of one.

The SHA-256 of a zip container (which `torch.save` writes) stands in its comment field: the file
stays a valid container, one file suffices, and every flipped bit is found.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

TEMPORARY = ".part"
"""Ending of files that are being written; a left-over one is removed by `remove_leftovers`."""

_MARK = b"diffusion_lab sha256="
_SEAL_LENGTH = len(_MARK) + 64


def seal(content: bytes) -> bytes:
    """A zip file's bytes with the SHA-256 of them written into its (empty) comment field."""
    if content[-2:] != b"\0\0":
        raise ValueError("the content does not end in an empty zip comment")
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:-2] + _SEAL_LENGTH.to_bytes(2, "little") + _MARK + digest


def check_seal(content: bytes) -> str | None:
    """What is wrong with the bytes of a sealed file; None if nothing is."""
    if not content:
        return "is empty"
    body, mark = content[: -_SEAL_LENGTH - 2], content[-_SEAL_LENGTH:]
    length = content[-_SEAL_LENGTH - 2 : -_SEAL_LENGTH]
    if not content.startswith(b"PK") and not mark.startswith(_MARK):
        return "is not a diffusion_lab checkpoint"
    if not mark.startswith(_MARK) or length != _SEAL_LENGTH.to_bytes(2, "little"):
        return "is cut short or damaged, or was not written by diffusion_lab"
    if hashlib.sha256(body + b"\0\0").hexdigest().encode() != mark[len(_MARK) :]:
        return "is damaged: its content does not have the SHA-256 that it had when written"
    return None


def write_synced(content: bytes, target: Path) -> None:
    """Write beside the target, sync, rename; on any error the old file stays and no other does.

    Raises:
        OSError: The file cannot be written.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}{TEMPORARY}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
