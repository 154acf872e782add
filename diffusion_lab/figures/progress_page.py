"""How the samples became better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lab.figures.page import inside
from diffusion_lab.ranges import Count, checked

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class ProgressPage:
    """The first images of the grids in samples/, one row an epoch (or step).

    They are cut out of the files that the grid callback wrote, so nothing is drawn anew.

    Args:
        file: The picture, relative to the run's folder.
        images: Images a row.
        rows: Rows at most; evenly spread over the grids there are.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a file outside of the run's folder.
    """

    @checked
    def __init__(self, file: str, images: Count = 10, rows: Count = 12) -> None:
        self.file = inside("file", file, (".png",))
        self.images = images
        self.rows = rows

    @property
    def caption(self) -> str:
        """What it shows."""
        return "the same noise after more and more training"

    def write(self, model: Generates, folder: Path) -> Path:
        """Cut and stack."""
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.progress_strip import progress_strip
        from diffusion_lab.runs.records import grids

        picture = progress_strip(grids(folder), images=self.images, rows=self.rows)
        return save_picture(folder / self.file, picture)
