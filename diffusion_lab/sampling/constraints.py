"""Constraints: on x0-hat, applied after guidance, and on the state, applied after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, marginal
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import checked

X0Constraint = Callable[[Tensor, Level], Tensor]
StateConstraint = Callable[[Tensor, Level, Noise], Tensor]


class Clip:
    """Clamp x0-hat to the data's range at every step ("clip_denoised")."""

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ArgumentError("low", low, f"must be below high={high}")
        self.low = low
        self.high = high

    def __call__(self, x0: Tensor, level: Level) -> Tensor:
        """Clamped x0-hat, (B, *)."""
        return x0.clamp(self.low, self.high)


class DynamicThreshold:
    r"""Shrink an x0-hat that overshoots (Saharia et al., "Imagen", arXiv 2205.11487, section 2.3).

    s is the `quantile` of |x0-hat| of each image, at least 1; x0-hat is clamped to [-s, s] and
    divided by s.
    """

    @checked
    def __init__(self, quantile: Annotated[float, Gt(0), Le(1)] = 0.995) -> None:
        self.quantile = quantile

    def __call__(self, x0: Tensor, level: Level) -> Tensor:
        """x0-hat in [-1, 1], (B, *)."""
        flat = x0.flatten(1)
        s = torch.quantile(flat.abs().float(), self.quantile, dim=1).clamp_min(1.0).to(x0.dtype)
        return (flat.clamp(-s[:, None], s[:, None]) / s[:, None]).view_as(x0)


class Inpaint:
    r"""Keep the known part of an image (Lugmayr et al., "RePaint", arXiv 2201.09865, eq. 8).

    After every step the known pixels are those of the image, noised to the level reached; the rest
    is what was sampled. With the grid `RePaint` the seams heal.
    """

    def __init__(self, image: Tensor, known: Tensor) -> None:
        self.image = image
        self.known = known

    def __call__(self, x: Tensor, level: Level, noise: Noise) -> Tensor:
        """The state (B, *) with its known part replaced."""
        image = self.image.to(x).expand_as(x)
        known = self.known.to(x.device).expand_as(x) > 0
        if not level.sigma > 0:
            return torch.where(known, image, x)
        return torch.where(known, marginal(image, noise.normal(x), level), x)
