"""A plain convolutional network: blocks at one size, no U."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.blocks import BlockFactory, ResBlock
from diffusion_lab.denoisers.conditioner import ConditionedNetwork, Conditions, with_extra
from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
    zero_,
)
from diffusion_lab.ranges import Count, checked


class CNN(ConditionedNetwork):
    """The simplest denoiser of images of any size; it sees 4 * blocks + 5 pixels across."""

    @checked
    def __init__(
        self,
        channels: Count = 1,
        num_classes: int | None = None,
        *,
        width: Count = 64,
        blocks: Count = 4,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
        block: BlockFactory = ResBlock,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        super().__init__(
            channels,
            num_classes,
            time_dim,
            activation,
            learned_variance=learned_variance,
            self_conditioning=self_conditioning,
            conditions=conditions,
        )
        self.stem = nn.Conv2d(self.in_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            block(width, width, time_dim, norm=norm, activation=activation) for _ in range(blocks)
        )
        self.act = activation()
        self.norm_out = norm(width)
        self.conv_out = zero_(nn.Conv2d(width, self.out_channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map images (B, channels, H, W) to the same size; arguments as `UNet.forward`."""
        x = with_extra(x, extra)
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h, embedding)
        return self.conv_out(self.act(self.norm_out(h)))
