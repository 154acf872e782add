"""How samples became better: the same images of every grid, one row a grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from diffusion_lab.figures.grids import BACKGROUND, tiles
from diffusion_lab.figures.margins import with_margins
from diffusion_lab.runs.records import caption
from diffusion_lab.spread import spread

GAP = 2
CLOUD = 210
CLOUDS_A_ROW = 4


def progress_strip(grids: Sequence[Path], images: int = 10, rows: int = 12) -> Image.Image:
    """Cut the first images out of each grid's file and stack them, with their epoch or step.

    Args:
        grids: PNG files of ``grids.save_picture``, in their order.
        images: images a row.
        rows: rows at most; the grids shown are evenly chosen, first and last included.

    Returns:
        A picture with one row a grid. A grid of one picture (points) is a tile instead, at most
        four a row, its caption above.

    Raises:
        ValueError: no grids, or files that do not say where their tiles are.
    """
    if not grids:
        raise ValueError("grids is empty: samples/ holds no epoch_*.png or step_*.png")
    chosen = [grids[k] for k in spread(len(grids), rows)]
    cut = []
    for path in chosen:
        with Image.open(path) as grid:
            try:
                cut.append(tiles(grid, images))
            except ValueError as error:
                raise ValueError(f"{path.name} is {error}") from None
    words = [caption(path) for path in chosen]
    if all(len(row) == 1 for row in cut) and images > 1:
        return _sheet([row[0] for row in cut], words)
    return _stack(cut, words)


def _stack(cut: list[list[Image.Image]], words: list[str]) -> Image.Image:
    """Rows of images, their words in front."""
    width = max(sum(tile.width + GAP for tile in row) for row in cut) + GAP
    heights = [max(tile.height for tile in row) + GAP for row in cut]
    sheet = _blank((width, sum(heights) + GAP), [tile for row in cut for tile in row])
    left = []
    y = GAP
    for row, height, text in zip(cut, heights, words, strict=True):
        x = GAP
        for tile in row:
            sheet.paste(tile, (x, y))
            x += tile.width + GAP
        left.append((y + (height - GAP) / 2, text))
        y += height
    return with_margins(sheet, left=left)


def _sheet(pictures: list[Image.Image], words: list[str]) -> Image.Image:
    """Pictures beside each other, made smaller, each with its words above."""
    small = [picture.convert("RGB").resize((CLOUD, CLOUD)) for picture in pictures]
    titled = [
        with_margins(picture, above=[(CLOUD / 2, text)])
        for picture, text in zip(small, words, strict=True)
    ]
    rows = -(-len(titled) // CLOUDS_A_ROW)
    columns = -(-len(titled) // rows)
    across, down = CLOUD + GAP, titled[0].height + GAP
    sheet = _blank((columns * across + GAP, rows * down + GAP), titled)
    for k, picture in enumerate(titled):
        sheet.paste(picture, (GAP + (k % columns) * across, GAP + (k // columns) * down))
    return sheet


def _blank(size: tuple[int, int], tiles: list[Image.Image]) -> Image.Image:
    grey = all(tile.mode == "L" for tile in tiles)
    return Image.new("L" if grey else "RGB", size, BACKGROUND if grey else (BACKGROUND,) * 3)
