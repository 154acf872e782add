"""Samples as one picture, whatever they are: images as a grid, points in the plane as a cloud."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from diffusion_lab.figures.clouds import scatter_image
from diffusion_lab.figures.grids import TILES, image_grid
from diffusion_lab.pixels import refuse_shape


def picture(
    samples: Tensor, columns: int = 10, scale: int = 2, limit: float | None = None
) -> Image.Image:
    """Draw samples.

    Args:
        samples: images (N, C, H, W), C = 1 or 3, in [-1, 1]; or points (N, 2). N >= 1.
        columns: images a row; points have none.
        scale: side of the square that one image pixel becomes; points have none.
        limit: half the width of the window of points; None to hold all of them.

    Returns:
        A picture whose tiles (``grids.tiles``) are the images, or the one cloud.

    Raises:
        ValueError: samples of another shape, or none.
    """
    refuse_shape(samples.shape[1:])
    if samples.ndim == 4:
        return image_grid(samples, columns, scale)
    cloud = scatter_image(samples, limit=limit)
    cloud.info[TILES] = f"{cloud.width} {cloud.height} 0 0 1 1"
    return cloud
