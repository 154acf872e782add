"""Files that say whether they are whole.

The SHA-256 of a zip container (which `torch.save` writes) stands in its comment field: the file
stays a valid container, one file suffices, and every flipped bit is found.
"""

from __future__ import annotations

import hashlib

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
