"""From content to one self-contained HTML file: templates, inlined pictures, content policy.

Nothing is fetched. Every text from a run is escaped by the template engine, and the content policy
lets only the page's own style and script (named by their hashes) act, so that a hostile name stays
text.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
LINE_COLOURS = 6
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: its file, relative to the run or sweep.
        caption: what it shows.
        source: a data URI; "" where the page has no room for it.
        width: in pixels.
        height: in pixels.
    """

    name: str
    caption: str
    source: str
    width: int
    height: int


class Album:
    """Inlines pictures as long as there is room, so that the page can still be sent by mail.

    Args:
        folder: what the names of pictures are relative to.
        room: bytes of files that may still be inlined.
    """

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room = folder, room

    def __call__(self, path: Path, caption: str = "") -> Picture | None:
        """One PNG file; None if it is none."""
        content = path.read_bytes()
        if not content.startswith(_PNG) or len(content) < 24:
            return None
        width, height = struct.unpack(">II", content[16:24])
        name = path.relative_to(self.folder).as_posix()
        if len(content) > self.room:
            return Picture(name, caption, "", width, height)
        self.room -= len(content)
        source = "data:image/png;base64," + base64.b64encode(content).decode()
        return Picture(name, caption, source, width, height)


def render(template: str, content: dict[str, Any]) -> bytes:
    """Fill a template; style and script go in verbatim, with the policy that admits only them."""
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["colours"] = LINE_COLOURS
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'"
    )
    page = environment.get_template(template).render(
        **content, policy=policy, style=Markup(style), script=Markup(script)
    )
    return page.encode()


def _hash(text: str) -> str:
    """The hash by which a content policy names an inline style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
