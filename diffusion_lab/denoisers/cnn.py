"""A plain convolutional network: blocks at one size, no U."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.blocks import BlockFactory, ResBlock
from diffusion_lab.denoisers.embeddings import ConditionEmbedding
from diffusion_lab.denoisers.inputs import with_estimate
from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
    zero_,
)


class CNN(nn.Module):
    """The simplest denoiser of images of any size; it sees 4 * blocks + 5 pixels across.

    Attributes:
        channels: Channels of the image.
        num_classes: Number of classes without the null class, or None.
        self_conditioning: Whether it reads its own last estimate.
    """

    def __init__(
        self,
        channels: int = 1,
        num_classes: int | None = None,
        *,
        width: int = 64,
        blocks: int = 4,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        block: BlockFactory = ResBlock,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        """Build the network.

        Args:
            channels: Channels of the image.
            num_classes: Classes without the null class; None for an unconditional net.
            width: Channels inside.
            blocks: How many blocks.
            time_dim: Width of the condition vector; even.
            learned_variance: Twice the channels out; the second half says the variance.
            self_conditioning: Twice the channels in; the second half is the last estimate.
            block: Factory of blocks (blocks.py).
            norm: Factory of norms (layers.py).
            activation: Factory of activations (layers.py).

        Raises:
            ValueError: a number out of range.
        """
        super().__init__()
        for name, value in (("channels", channels), ("width", width), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self.channels, self.num_classes = channels, num_classes
        self.embed = ConditionEmbedding(time_dim, num_classes, activation)
        self.self_conditioning = self_conditioning
        self.stem = nn.Conv2d(channels * (2 if self_conditioning else 1), width, 3, padding=1)
        self.blocks = nn.ModuleList(
            block(width, width, time_dim, norm=norm, activation=activation) for _ in range(blocks)
        )
        self.act = activation()
        self.norm_out = norm(width)
        self.conv_out = zero_(
            nn.Conv2d(width, channels * (2 if learned_variance else 1), 3, padding=1)
        )

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        """Map images (B, channels, H, W) to the same size; arguments as `UNet.forward`."""
        condition = self.embed(c_noise, label)
        x = with_estimate(x, estimate, self.self_conditioning)
        h = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h, condition)
        return self.conv_out(self.act(self.norm_out(h)))
