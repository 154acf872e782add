"""How much of the guidance acts at each noise level."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Positive, checked


def checked_scale(scale: float) -> float:
    """The scale, if it is a finite number; else an ArgumentError."""
    if not math.isfinite(scale):
        raise ArgumentError("scale", scale, "must be a finite number; 1 is no guidance")
    return scale


class Strength(ABC):
    """How much of the guidance acts at each noise level."""

    @abstractmethod
    def __call__(self, level: Level) -> Tensor:
        """Factor on (scale - 1), float64, of the level's shape; 0 is the conditional model."""


class Interval(Strength):
    """Guidance at times in (low, high] alone (Kynkaanniemi et al., arXiv 2404.07724).

    Outside, the conditional model is asked alone, at half the cost.
    """

    def __init__(self, low: float = 0.2, high: float = 0.8) -> None:
        if not 0 <= low < high <= 1:
            raise ArgumentError(
                "low",
                low,
                f"must be at least 0 and below high={high}, at most 1 (0 is data, 1 is noise)",
            )
        self.low, self.high = low, high

    def __call__(self, level: Level) -> Tensor:
        """1 inside, 0 outside."""
        return ((level.t > self.low) & (level.t <= self.high)).double()


class PowerCosine(Strength):
    """From none at the noisiest to all at the cleanest: (1 - cos(pi (1 - t)^power)) / 2.

    Gao et al., "Masked Diffusion Transformer" (arXiv 2303.14389, appendix): early steps, which
    decide the composition, stay diverse. They take a power of 4 at scale 3.8.
    """

    @checked
    def __init__(self, power: Positive = 1.0) -> None:
        self.power = power

    def __call__(self, level: Level) -> Tensor:
        """The formula above."""
        return 0.5 * (1 - torch.cos(math.pi * (1 - level.t).clamp(0, 1) ** self.power))


def scale_at(scale: float, strength: Strength | None, level: Level) -> Tensor:
    """1 + (scale - 1) strength(level), float64, of the level's shape; no strength is 1."""
    if strength is None:
        return torch.full_like(level.t, scale)
    return 1.0 + (scale - 1.0) * strength(level)
