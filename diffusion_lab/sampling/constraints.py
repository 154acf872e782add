"""Constraints on x0-hat, applied after guidance."""

from __future__ import annotations

from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level


class Clip:
    """Clamp x0-hat to the data's range at every step ("clip_denoised").

    Args:
        low: Lower end.
        high: Upper end, above `low`.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        if not low < high:
            raise ValueError(f"constraint.low={low} must be below constraint.high={high}")
        self.low = low
        self.high = high

    def __call__(self, x0: Tensor, level: Level) -> Tensor:
        """Clamped x0-hat, (B, *)."""
        return x0.clamp(self.low, self.high)
