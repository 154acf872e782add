"""A classifier that is told how noisy its input is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.blocks import ResBlock
from diffusion_lab.denoisers.conditioner import Conditioner
from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
)
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, checked


class NoiseClassifier(nn.Module):
    """The encoder of a U-Net, then the mean over all pixels and a linear layer.

    Dhariwal & Nichol (arXiv 2105.05233, section 4.1) take the U-Net's encoder with attention
    pooling; at 28 x 28 the mean does.
    """

    denoises = False
    """So that it is not taken for a denoiser."""

    @checked
    def __init__(
        self,
        channels: int = 1,
        num_classes: Count = 10,
        *,
        base_channels: Count = 32,
        multipliers: Sequence[Count] = (1, 2, 4),
        time_dim: int = 64,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        super().__init__()
        if not multipliers:
            raise ArgumentError("multipliers", [], "must be one number a level, e.g. [1, 2, 4]")
        self.channels, self.num_classes = channels, num_classes
        widths = [base_channels * m for m in multipliers]
        self.embed = Conditioner(time_dim, None, activation)
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            ResBlock(inputs, width, time_dim, norm=norm, activation=activation)
            for inputs, width in zip([widths[0], *widths], widths, strict=False)
        )
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.act = activation()
        self.norm_out = norm(widths[-1])
        self.out = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Map images (B, channels, H, W) at noise levels (B,) to logits (B, num_classes)."""
        condition = self.embed(c_noise, None)
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        for number, block in enumerate(self.blocks):
            h = block(h if number == 0 else self.pool(h), condition)
        return self.out(self.act(self.norm_out(h)).mean((2, 3)))
