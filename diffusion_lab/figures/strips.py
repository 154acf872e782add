"""The road from noise to sample, one column a step: x_t above, the estimate x0-hat below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.figures.clouds import scatter_image, window
from diffusion_lab.figures.grids import image_grid
from diffusion_lab.figures.margins import with_margins
from diffusion_lab.spread import spread

CLOUD = 150
"""Side of the picture of one cloud of points."""


class Evaluated(Protocol):
    """What a strip reads of a sampling step (``diffusion_lab.sampling.sampler.Step`` has it)."""

    @property
    def x_t(self) -> Tensor:
        """The noisy state."""
        ...

    @property
    def x0(self) -> Tensor:
        """The estimate of the image."""
        ...


Frames = Sequence[Evaluated] | tuple[Sequence[Tensor], Sequence[Tensor]]


def strip_image(
    steps: Frames,
    images: int | None = None,
    *,
    count: int | None = None,
    scale: int = 2,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Draw the steps of a sampling run, two rows for each image; a cloud of points has two in all.

    Args:
        steps: the steps in the order in which they were taken; or the pair (list of x_t, list of
            x0-hat), tensors (N, C, H, W) or (N, 2).
        images: how many of the N images to show; None for all. Points are shown together.
        count: show only that many steps, evenly chosen, first and last included; None for all.
        scale: side of the square that one image pixel becomes.
        captions: words over the column of each step, and "x_t" and "x0-hat" in front of the rows;
            None for a bare picture.

    Returns:
        A picture; for each image a row of x_t (clipped to [-1, 1] for display) over one of x0-hat.

    Raises:
        ValueError: no steps, lists of different lengths, ``count`` or ``images`` below 1.
    """
    x_t, x0 = _both(steps)
    if not x_t or len(x_t) != len(x0):
        raise ValueError(
            f"steps: {len(x_t)} x_t and {len(x0)} x0; give as many of each, at least 1"
        )
    shown = len(x_t[0]) if images is None else min(images, len(x_t[0]))
    if shown < 1:
        raise ValueError(f"images={images}: give at least 1")
    if captions is not None and len(captions) != len(x_t):
        raise ValueError(f"captions has {len(captions)} entries for {len(x_t)} steps")
    chosen = range(len(x_t)) if count is None else spread(len(x_t), count)
    if x_t[0].ndim == 2:
        sheet, rows = _clouds([[kind[k] for k in chosen] for kind in (x_t, x0)]), 2
    else:
        tiles = [
            kind[position][image].detach().float().cpu()
            for image in range(shown)
            for kind in (x_t, x0)
            for position in chosen
        ]
        sheet, rows = image_grid(torch.stack(tiles), columns=len(chosen), scale=scale), 2 * shown
    if captions is None:
        return sheet
    across, down = sheet.width / len(chosen), sheet.height / rows
    above = [((k + 0.5) * across, captions[position]) for k, position in enumerate(chosen)]
    left = [((row + 0.5) * down, ("x_t", "x0-hat")[row % 2]) for row in range(rows)]
    return with_margins(sheet, above, left)


def _clouds(rows: list[list[Tensor]]) -> Image.Image:
    """Rows of scatter plots in one window, which holds the states; early estimates fly far."""
    limit = window(rows[0])
    sheet = Image.new("RGB", (len(rows[0]) * (CLOUD + 2), len(rows) * (CLOUD + 2)), (200,) * 3)
    for down, row in enumerate(rows):
        for across, cloud in enumerate(row):
            tile = scatter_image(cloud, limit=limit, size=CLOUD)
            sheet.paste(tile, (across * (CLOUD + 2) + 1, down * (CLOUD + 2) + 1))
    return sheet


def _both(steps: Frames) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Split into the x_t and the x0-hat of each step."""
    if len(steps) and hasattr(steps[0], "x_t"):
        return [step.x_t for step in steps], [step.x0 for step in steps]
    return steps if len(steps) == 2 else ((), ())
