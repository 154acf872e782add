"""Samples as one picture, whatever they are: images as a grid, points in the plane as a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.figures.grids import image_grid, tiled, titled, with_margins
from diffusion_lab.figures.pictures import TILES, tiles
from diffusion_lab.figures.scatter import Labels, moments_image, scatter_image
from diffusion_lab.pixels import refuse_shape
from diffusion_lab.runs.records import caption
from diffusion_lab.spread import spread

CLOUD, CLOUDS_A_ROW = 210, 4
"""Side of a cloud of points in a progress strip, and how many stand beside each other."""


def samples_image(
    samples: Tensor, columns: int = 10, scale: int = 2, limit: float | None = None
) -> Image.Image:
    """Draw samples, as a picture whose tiles (`pictures.tiles`) are the images, or the one cloud.

    Args:
        samples: Images (N, C, H, W), C = 1 or 3, in [-1, 1]; or points (N, 2). N >= 1.
        columns: Images a row; points have none.
        scale: Side of the square that one image pixel becomes; points have none.
        limit: Half the width of the window of points; None to hold all of them.

    Raises:
        ValueError: Samples of another shape, or none.
    """
    refuse_shape(samples.shape[1:])
    if samples.ndim == 4:
        return image_grid(samples, columns, scale)
    cloud = scatter_image(samples, limit=limit)
    cloud.info[TILES] = f"{cloud.width} {cloud.height} 0 0 1 1"
    return cloud


def strip_image(
    states: Sequence[Tensor],
    estimates: Sequence[Tensor],
    titles: Sequence[str],
    labels: Labels = None,
    scale: int = 2,
) -> Image.Image:
    """From noise to samples, one column a moment, two rows an image: x_t over x0-hat.

    Args:
        states: x_t of each moment, in the order of sampling: images (N, C, H, W), shown clipped to
            [-1, 1], or points (N, 2), which share one pair of rows.
        estimates: x0-hat of the same moments.
        titles: Written over the columns.
        labels: Classes of points, which colour them.
        scale: Side of the square that one image pixel becomes.

    Raises:
        ValueError: No moments, or lists of different lengths.
    """
    if not states or not len(states) == len(estimates) == len(titles):
        raise ValueError(
            f"moments: {len(states)} states, {len(estimates)} estimates and {len(titles)} titles; "
            "give as many of each, at least 1"
        )
    if states[0].ndim == 2:
        return moments_image(states, estimates, titles, labels)
    rows = [
        torch.stack([moment[image].detach().float().cpu() for moment in kind])
        for image in range(len(states[0]))
        for kind in (states, estimates)
    ]
    sheet = image_grid(torch.cat(rows), columns=len(states), scale=scale)
    across, down = sheet.width / len(states), sheet.height / len(rows)
    above = [((k + 0.5) * across, title) for k, title in enumerate(titles)]
    left = [((row + 0.5) * down, ("x_t", "x0-hat")[row % 2]) for row in range(len(rows))]
    return with_margins(sheet, above, left)


def progress_image(grids: Sequence[Path], images: int = 10, rows: int = 12) -> Image.Image:
    """How samples became better: the first images of every grid, with its epoch or step.

    Args:
        grids: PNG files of `pictures.save_picture`, in their order.
        images: Images a row.
        rows: Rows at most; the grids shown are evenly chosen, first and last included.

    Returns:
        A picture with one row a grid. A grid of one picture (points) is a tile instead, at most
        four a row, its caption above.

    Raises:
        ValueError: No grids, or files that do not say where their tiles are.
    """
    if not grids:
        raise ValueError("grids is empty: samples/ holds no epoch_*.png or step_*.png")
    chosen = [grids[k] for k in spread(len(grids), rows)]
    words = [caption(path) for path in chosen]
    cut = []
    for path in chosen:
        with Image.open(path) as grid:
            try:
                cut.append(tiles(grid, images))
            except ValueError as error:
                raise ValueError(f"{path.name} is {error}") from None
    if all(len(row) == 1 for row in cut) and images > 1:
        small = [row[0].convert("RGB").resize((CLOUD, CLOUD)) for row in cut]
        clouds = [titled(*cloud) for cloud in zip(small, words, strict=True)]
        lines = -(-len(clouds) // CLOUDS_A_ROW)
        return tiled(clouds, -(-len(clouds) // lines))
    columns = min(map(len, cut))
    sheet = tiled([tile for row in cut for tile in row[:columns]], columns)
    down = sheet.height / len(cut)
    return with_margins(sheet, left=[((k + 0.5) * down, text) for k, text in enumerate(words)])
