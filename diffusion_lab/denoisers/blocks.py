"""The pieces of a convolutional denoiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
    zero_,
)


class ResBlock(nn.Module):
    """Pre-activation residual block, told the noise level and class by scale and shift.

    h = conv1(act(norm1(x))); h = norm2(h) (1 + scale) + shift; y = skip(x) + conv2(act(h)), with
    (scale, shift) = Linear(act(condition)) (adaptive group normalisation, Dhariwal & Nichol 2021,
    arXiv 2105.05233, section 3). With `scale_shift=False` the condition is added before norm2, as
    in Ho et al. 2020. conv2 starts at zero: the block starts as its skip.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int | None = None,
        *,
        dropout: float = 0.0,
        scale_shift: bool = True,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        """Build the block.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            condition_dim: Width of the condition vector; None for a block that is told nothing.
            dropout: Chance that a value is dropped before conv2, 0 to 1.
            scale_shift: Scale and shift after norm2, rather than add before it.
            norm: Factory of the norms.
            activation: Factory of the activations.
        """
        super().__init__()
        self.scale_shift = scale_shift
        self.norm1 = norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.conv2 = zero_(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.act = activation()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )
        self.condition = (
            nn.Linear(condition_dim, out_channels * (2 if scale_shift else 1))
            if condition_dim
            else None
        )

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W).

        Args:
            x: Feature map.
            condition: (B, condition_dim), already activated; not read by a block built without.
        """
        h = self.conv1(self.act(self.norm1(x)))
        h = self._modulated(h, condition)
        return self.skip(x) + self.conv2(self.dropout(self.act(h)))

    def _modulated(self, h: Tensor, condition: Tensor | None) -> Tensor:
        if self.condition is None:
            return self.norm2(h)
        told = self.condition(condition)[:, :, None, None]
        if not self.scale_shift:
            return self.norm2(h + told)
        scale, shift = told.chunk(2, dim=1)
        h = self.norm2(h)
        return torch.addcmul(shift.to(h.dtype), h, 1 + scale.to(h.dtype))


class Downsample(nn.Module):
    """Halve the size and change the width by a 3x3 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int):
        """Build the convolution."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Change the width by a 3x3 convolution and double the size, by copying pixels."""

    def __init__(self, in_channels: int, out_channels: int):
        """Build the convolution, which runs at the smaller size: a quarter of the work."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")
