"""Images inside the page, as long as there is room, so that it can still be sent by mail."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from diffusion_lab.spread import spread

MOST_GRIDS = 60
"""Grids of samples shown of one run, or of the jobs of a sweep."""
_PNG = b"\x89PNG\r\n\x1a\n"


class InlineImage(NamedTuple):
    """An image of the page: its file, what it shows, its data URI ("" without room), its size."""

    name: str
    caption: str
    source: str
    width: int
    height: int


class ImageInliner:
    """Inlines PNG files of a folder.

    Args:
        folder: What the names of images are relative to.
        room: Bytes of files that may still be inlined.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room

    def __call__(self, path: Path, caption: str = "") -> InlineImage | None:
        """One file; None if it is no PNG file."""
        return self.content(path.read_bytes(), path.relative_to(self.folder).as_posix(), caption)

    def several(self, paths: Sequence[Path], captions: Sequence[str]) -> list[InlineImage]:
        """Files with their captions; those that are no PNG file are left out."""
        found = map(self, paths, captions)
        return [image for image in found if image is not None]

    def content(self, content: bytes, name: str, caption: str = "") -> InlineImage | None:
        """Inline a PNG file's bytes while they fit the room; None if they are no PNG."""
        if not content.startswith(_PNG) or len(content) < 24:
            return None
        width, height = struct.unpack(">II", content[16:24])
        source = ""
        if len(content) <= self.room:
            self.room -= len(content)
            source = "data:image/png;base64," + base64.b64encode(content).decode()
        return InlineImage(name, caption, source, width, height)


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the paths, evenly chosen, first and last included."""
    return [paths[k] for k in spread(len(paths), most)] if paths else []
