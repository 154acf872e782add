"""Another name for something in the run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lab.figures.page import inside

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class AliasPage:
    """A relative symbolic link, e.g. checkpoints/model_latest.pth -> last.ckpt.

    Args:
        file: The other name, relative to the run's folder.
        of: What it stands for, a file or a folder, relative to the run's folder.

    Raises:
        ValueError: a path that leaves the run's folder, or a link to itself or into itself.
    """

    def __init__(self, file: str, of: str) -> None:
        self.file = inside("file", file)
        self.of = inside("of", of)
        if Path(file).is_relative_to(of) or Path(of).is_relative_to(file):
            raise ValueError(f"file={file!r} and of={of!r} must be two places beside each other")

    @property
    def caption(self) -> str:
        """What it stands for."""
        return f"another name of {self.of}"

    def write(self, model: Generates, folder: Path) -> Path:
        """Make the link, in place of an earlier one.

        Raises:
            FileNotFoundError: `of` is not there.
            FileExistsError: `file` is there and is no link.
        """
        link, target = folder / self.file, folder / self.of
        if not target.exists():
            raise FileNotFoundError(f"of={self.of!r} is not in the run's folder")
        if link.exists() and not link.is_symlink():
            raise FileExistsError(f"file={self.file!r} is there already and is no link")
        link.parent.mkdir(parents=True, exist_ok=True)
        beside = link.with_name(f".{link.name}.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(os.path.relpath(target, link.parent))
        beside.replace(link)
        return link
