"""The U-Net: an encoder that halves the image, a middle, a decoder that doubles it, and skips.

Ronneberger et al. 2015 (arXiv 1505.04597) in the form of Ho et al. 2020 (arXiv 2006.11239).

With multipliers (1, 2, 4), base_channels C and an image of 28: encoder stages of width C at 28 and
2C at 14, a middle of width 4C at 7, decoder stages of width 2C at 14 and C at 28. A downsample
widens, an upsample narrows; the features that enter a downsample are the skip of their stage,
joined by concatenation to what comes back up. `patch=2` first turns each 2x2 square of pixels into
channels (space to depth), which saves most of the work of a small image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.denoisers.attention import SelfAttention, check_heads
from diffusion_lab.denoisers.blocks import Downsample, ResBlock, Upsample
from diffusion_lab.denoisers.embeddings import ConditionEmbedding
from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    group_norm,
    silu,
    zero_,
)


class Stage(nn.Module):
    """Residual blocks of one size, some followed by self-attention."""

    def __init__(self, blocks: Sequence[ResBlock], attentions: Sequence[SelfAttention | None]):
        """Keep the layers; `attentions[i]` follows `blocks[i]`."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(a if a is not None else nn.Identity() for a in attentions)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H, W)."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x, condition))
        return x


class UNet(nn.Module):
    """The denoiser of images: (x (B, C, H, W), c_noise (B,), label (B,) | None) -> (B, C', H, W).

    The last convolution starts at zero, so that an untrained network returns 0.

    Attributes:
        channels: Channels of the image.
        num_classes: Number of classes without the null class, or None.
    """

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        num_classes: int | None = None,
        *,
        base_channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks_per_level: int = 1,
        middle_blocks: int = 2,
        attention: Sequence[int] = (7,),
        decoder_attention: bool = True,
        heads: int = 4,
        time_dim: int = 128,
        time_in_every_block: bool = True,
        scale_shift: bool = True,
        dropout: float = 0.0,
        patch: int = 1,
        out_channels: int | None = None,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        """Build the network; cheap, and possible on the meta device.

        Args:
            channels: Channels of the image.
            image_size: Height and width in pixels; patch * 2^(levels - 1) must divide it.
            num_classes: Classes without the null class; None for an unconditional net.
            base_channels: Width of the first stage.
            multipliers: Width of each level over base_channels; the last is the middle's.
            blocks_per_level: Residual blocks in each encoder and in each decoder stage.
            middle_blocks: Residual blocks at the smallest size.
            attention: Sizes of feature maps (pixels a side) that have self-attention: after each
                block of a stage; between the blocks of the middle.
            decoder_attention: Whether decoder stages have it too.
            heads: Attention heads.
            time_dim: Width of the condition vector; even.
            time_in_every_block: Tell every block the condition, or the first of each stage only.
            scale_shift: Condition by scale and shift, or by addition.
            dropout: Chance that a value is dropped inside a block, 0 to 1 (1 excluded).
            patch: Side of the squares of pixels that become channels; 1 for none.
            out_channels: Channels of the output; None for `channels`.
            norm: Factory of norms (layers.py).
            activation: Factory of activations (layers.py).

        Raises:
            ValueError: sizes, heads or numbers that do not fit, with those that do.
        """
        super().__init__()
        sizes = _sizes(image_size, patch, len(multipliers))
        widths = [base_channels * m for m in multipliers]
        _check_positive(
            channels=channels,
            base_channels=base_channels,
            multipliers=min(multipliers),
            blocks_per_level=blocks_per_level,
            middle_blocks=middle_blocks,
        )
        _check_attention(attention, sizes, widths, heads)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.channels, self.num_classes = channels, num_classes
        self.image_size, self.patch = image_size, patch
        self.embed = ConditionEmbedding(time_dim, num_classes, activation)
        block = partial(
            ResBlock, dropout=dropout, scale_shift=scale_shift, norm=norm, activation=activation
        )
        attend = partial(SelfAttention, heads=heads, norm=norm)

        def stage(inputs: int, width: int, count: int, attended: int) -> Stage:
            """`count` blocks, the first `attended` of them followed by attention."""
            told = [time_dim if time_in_every_block or i == 0 else None for i in range(count)]
            blocks = [block(inputs if i == 0 else width, width, told[i]) for i in range(count)]
            return Stage(blocks, [attend(width) if i < attended else None for i in range(count)])

        n = blocks_per_level
        attended = [n if size in attention else 0 for size in sizes]
        outer = list(range(len(widths) - 1))
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(stage(widths[i], widths[i], n, attended[i]) for i in outer)
        self.downs = nn.ModuleList(Downsample(widths[i], widths[i + 1]) for i in outer)
        between = middle_blocks - 1 if sizes[-1] in attention else 0
        self.middle = stage(widths[-1], widths[-1], middle_blocks, between)
        self.ups = nn.ModuleList(Upsample(widths[i + 1], widths[i]) for i in reversed(outer))
        self.decoder = nn.ModuleList(
            stage(2 * widths[i], widths[i], n, attended[i] if decoder_attention else 0)
            for i in reversed(outer)
        )
        self.act = activation()
        self.norm_out = norm(widths[0])
        out = (channels if out_channels is None else out_channels) * patch**2
        self.conv_out = zero_(nn.Conv2d(widths[0], out, 3, padding=1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: Images (B, channels, image_size, image_size).
            c_noise: (B,), what to embed of the noise level.
            label: (B,) long, `num_classes` meaning none; or None for none at all.

        Returns:
            (B, out_channels, image_size, image_size), in the autocast's type if one is on.
        """
        condition = self.act(self.embed(c_noise, label))
        # Channels last is the layout in which CPU and GPU convolutions are fastest.
        h = F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last)
        h = self.stem(h)
        skips = []
        for stage, down in zip(self.encoder, self.downs, strict=True):
            h = stage(h, condition)
            skips.append(h)
            h = down(h)
        h = self.middle(h, condition)
        for up, stage in zip(self.ups, self.decoder, strict=True):
            h = stage(torch.cat([up(h), skips.pop()], dim=1), condition)
        h = self.conv_out(self.act(self.norm_out(h)))
        return F.pixel_shuffle(h, self.patch)


def _sizes(image_size: int, patch: int, levels: int) -> list[int]:
    """Sides of the feature maps from the largest to the smallest."""
    if levels < 1:
        raise ValueError("multipliers=[]: needs one number a level, e.g. [1, 2, 4]")
    _check_positive(image_size=image_size, patch=patch)
    unit = patch * 2 ** (levels - 1)
    if image_size % unit:
        below, above = image_size // unit * unit, -(-image_size // unit) * unit
        near = " or ".join(str(size) for size in (below, above) if size)
        raise ValueError(
            f"image_size={image_size}: patch={patch} and {levels} levels (multipliers) divide the "
            f"image by {unit}; take {near}, or fewer levels"
        )
    return [image_size // patch // 2**level for level in range(levels)]


def _check_attention(
    attention: Sequence[int], sizes: Sequence[int], widths: Sequence[int], heads: int
) -> None:
    for size in attention:
        if size not in sizes:
            known = ", ".join(map(str, sizes))
            raise ValueError(f"attention={size}: no feature map has that side; there are {known}")
        check_heads(heads, widths[list(sizes).index(size)])


def _check_positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
