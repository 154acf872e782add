"""The pieces of a convolutional denoiser, as factories that a network is handed.

A block factory takes (in_channels, out_channels, condition_dim) and, by name, `norm` and
`activation`; a factory of down- or upsampling takes (in_channels, out_channels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
    zero_,
)
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import checked

BlockFactory = Callable[..., nn.Module]
ResampleFactory = Callable[[int, int], nn.Module]


class ResBlock(nn.Module):
    """Pre-activation residual block, conditioned by scale and shift.

    h = conv1(act(norm1(x))); h = norm2(h) (1 + scale) + shift; y = skip(x) + conv2(act(h)), with
    (scale, shift) = Linear(act(condition)) (adaptive group normalisation, Dhariwal & Nichol 2021,
    arXiv 2105.05233, section 3). With `scale_shift=False` the condition is added before norm2, as
    in Ho et al. 2020. conv2 starts at zero: the block starts as its skip. A block without
    `condition_dim` has no condition.
    """

    @checked
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int | None = None,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        scale_shift: bool = True,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
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
        """Map (B, in_channels, H, W) to (B, out_channels, H, W); the condition is activated."""
        h = self.conv1(self.act(self.norm1(x)))
        h = self._modulated(h, condition)
        return self.skip(x) + self.conv2(self.dropout(self.act(h)))

    def _modulated(self, h: Tensor, condition: Tensor | None) -> Tensor:
        if self.condition is None:
            return self.norm2(h)
        modulation = self.condition(condition)[:, :, None, None]
        if not self.scale_shift:
            return self.norm2(h + modulation)
        scale, shift = modulation.chunk(2, dim=1)
        h = self.norm2(h)
        return torch.addcmul(shift.to(h.dtype), h, 1 + scale.to(h.dtype))


class PlainBlock(nn.Module):
    """Two convolutions with norm and activation after each, and the condition in between.

    h = act(norm1(conv1(x))) + Linear(condition); y = act(norm2(conv2(h))): the block of the first
    U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with a noise level. It has no residual path
    and therefore does not start as the identity.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int | None = None,
        *,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm1 = norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.norm2 = norm(out_channels)
        self.act = activation()
        self.condition = nn.Linear(condition_dim, out_channels) if condition_dim else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W); see `ResBlock.forward`."""
        h = self.act(self.norm1(self.conv1(x)))
        if self.condition is not None:
            h = h + self.condition(condition)[:, :, None, None].to(h.dtype)
        return self.act(self.norm2(self.conv2(h)))


class Downsample(nn.Module):
    """Halve the size and change the width by a 3x3 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H/2, W/2)."""
        return self.conv(x)


class MaxPool(nn.MaxPool2d):
    """Halve the size by the largest of each 2x2 square; keeps the width."""

    def __init__(self, in_channels: int, out_channels: int):
        _check_same_width("down", "MaxPool", in_channels, out_channels)
        super().__init__(2)


class Upsample(nn.Module):
    """Change the width by a 3x3 convolution, then double the size by copying pixels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")


class Bilinear(nn.Module):
    """Double the size by bilinear interpolation; keeps the width."""

    def __init__(self, in_channels: int, out_channels: int):
        _check_same_width("up", "Bilinear", in_channels, out_channels)
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W)."""
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _check_same_width(name: str, layer: str, in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise ArgumentError(
            name,
            layer,
            f"has no weights to turn {in_channels} channels into {out_channels}; let blocks change "
            "the width (widen_in_blocks=true)",
        )
