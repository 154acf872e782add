"""The road from noise to image, one column a step: x_t above, the estimate x0-hat below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.reporting.grids import image_grid
from diffusion_lab.reporting.spread import spread


class Evaluated(Protocol):
    """What a strip reads of a sampling step (``diffusion_lab.sampling.sampler.Step`` has it)."""

    x_t: Tensor
    x0: Tensor


Frames = Sequence[Evaluated] | tuple[Sequence[Tensor], Sequence[Tensor]]


def strip_image(
    steps: Frames, images: int | None = None, *, count: int | None = None, scale: int = 2
) -> Image.Image:
    """Draw the steps of a sampling run, two rows for each image.

    Args:
        steps: the steps in the order in which they were taken; or the pair (list of x_t, list of
            x0-hat), tensors (N, C, H, W).
        images: how many of the N images to show; None for all.
        count: show only that many steps, evenly chosen, first and last included; None for all.
        scale: side of the square that one image pixel becomes.

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
    chosen = range(len(x_t)) if count is None else spread(len(x_t), count)
    rows = [
        kind[position][image].detach().float().cpu()
        for image in range(shown)
        for kind in (x_t, x0)
        for position in chosen
    ]
    return image_grid(torch.stack(rows), columns=len(chosen), scale=scale)


def _both(steps: Frames) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Split into the x_t and the x0-hat of each step."""
    if len(steps) and hasattr(steps[0], "x_t"):
        return [step.x_t for step in steps], [step.x0 for step in steps]
    return steps if len(steps) == 2 else ((), ())
