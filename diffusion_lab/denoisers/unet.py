"""The U-Net: an encoder that halves the image, a middle, a decoder that doubles it, and skips.

Ronneberger et al. 2015 (arXiv 1505.04597) in the form of Ho et al. 2020 (arXiv 2006.11239).

With multipliers (1, 2, 4), base_channels C and an image of 28, the widths of the maps are

    size        28       14       7       14       28
    at sizes    C        2C       4C      2C       C        a downsample widens, an upsample narrows
    in blocks   2C       4C       4C      2C       C        from a stem of C, by first blocks

The features that enter a downsample are the skip of their stage, joined by concatenation to what
comes back up. `patch=2` first turns each 2x2 square of pixels into channels (space to depth),
which saves most of the work of a small image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.denoisers.attention import SelfAttention, check_heads
from diffusion_lab.denoisers.blocks import (
    BlockFactory,
    Downsample,
    ResampleFactory,
    ResBlock,
    Upsample,
)
from diffusion_lab.denoisers.conditioner import ConditionedNetwork, Conditions, with_extra
from diffusion_lab.denoisers.layers import (
    ActivationFactory,
    NormFactory,
    check_positive,
    group_norm,
    silu,
    zero_,
)
from diffusion_lab.errors import ArgumentError


class Stage(nn.Module):
    """Blocks of one size, some followed by self-attention."""

    def __init__(self, blocks: Sequence[nn.Module], attentions: Sequence[SelfAttention | None]):
        """Keep the layers; `attentions[i]` follows `blocks[i]`."""
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(a if a is not None else nn.Identity() for a in attentions)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H, W)."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = attention(block(x, condition))
        return x


class UNet(ConditionedNetwork):
    """The denoiser of images (B, C, H, W).

    The last convolution starts at zero, so that an untrained network returns 0.
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
        widen_in_blocks: bool = False,
        attention: Sequence[int] | Literal["smallest"] = "smallest",
        attention_every_block: bool = True,
        decoder_attention: bool = True,
        heads: int = 4,
        time_dim: int = 128,
        time_hidden: int | None = None,
        time_in_every_block: bool = True,
        patch: int = 1,
        pad: bool = False,
        stem: bool = True,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
        out_kernel: int = 3,
        out_norm: bool = True,
        block: BlockFactory = ResBlock,
        down: ResampleFactory = Downsample,
        up: ResampleFactory = Upsample,
        norm: NormFactory = group_norm,
        activation: ActivationFactory = silu,
    ):
        """Build the network; cheap, and possible on the meta device.

        Args:
            channels: Channels of the image.
            image_size: Height and width in pixels; patch * 2^(levels - 1) must divide it, or `pad`
                be set.
            num_classes: Classes without the null class; None for an unconditional net.
            base_channels: Width of the first level.
            multipliers: Width of each level over base_channels; the last is the middle's.
            blocks_per_level: Blocks in each encoder and in each decoder stage.
            middle_blocks: Blocks at the smallest size.
            widen_in_blocks: Change the width in the stages' first blocks, not where the size
                changes; skips then have the next level's width.
            attention: Sizes of feature maps (pixels a side) that have self-attention: after
                blocks of a stage; between the blocks of the middle. "smallest" is the middle alone.
            attention_every_block: After every block of such a stage, or after its last one only.
            decoder_attention: Whether decoder stages have it too.
            heads: Attention heads.
            time_dim: Width of the condition vector; even.
            time_hidden: Width inside the MLP of the condition; None for time_dim, 0 for no MLP.
            time_in_every_block: Tell every block the condition, or the first of each stage only.
            patch: Side of the squares of pixels that become channels; 1 for none.
            pad: Grow images that do not halve evenly by mirroring their edges, and cut the output.
            stem: Begin with a 3x3 convolution, or let the first block read the image.
            learned_variance: Twice the channels out; the second half says the variance.
            self_conditioning: Twice the channels in; the second half is the last estimate.
            conditions: Further conditions (conditioner.py); None for none.
            out_kernel: Side of the last convolution; odd.
            out_norm: Norm and activation in front of it.
            block: Factory of blocks (blocks.py).
            down: Factory of layers that halve the size (blocks.py).
            up: Factory of layers that double it (blocks.py).
            norm: Factory of norms (layers.py).
            activation: Factory of activations (layers.py).

        Raises:
            ArgumentError: sizes, heads or numbers that do not fit, with those that do.
        """
        unit, sizes = _sizes(image_size, patch, len(multipliers), pad)
        attention = sizes[-1:] if attention == "smallest" else attention
        check_positive(
            channels=channels,
            base_channels=base_channels,
            multipliers=min(multipliers),
            blocks_per_level=blocks_per_level,
            middle_blocks=middle_blocks,
        )
        if out_kernel < 1 or out_kernel % 2 == 0:
            raise ArgumentError("out_kernel", out_kernel, "must be odd and at least 1, e.g. 3")
        widths = [base_channels * m for m in multipliers]
        inner = widths[1:] if widen_in_blocks else widths[:-1]  # of encoder stages and their skips
        _check_attention(attention, sizes, [*inner, widths[-1]], heads)
        if decoder_attention:
            _check_attention(attention, sizes, widths, heads)
        super().__init__(
            channels,
            num_classes,
            time_dim,
            activation,
            time_hidden=time_hidden,
            self_conditioning=self_conditioning,
            conditions=conditions,
        )
        self.image_size, self.patch, self.pad, self.unit = image_size, patch, pad, unit
        make_block = partial(block, norm=norm, activation=activation)
        attend = partial(SelfAttention, heads=heads, norm=norm)

        def stage(inputs: int, width: int, count: int, attended: Sequence[int] = ()) -> Stage:
            """`count` blocks, those numbered in `attended` followed by attention."""
            told = [time_dim if time_in_every_block or i == 0 else None for i in range(count)]
            blocks = [make_block(inputs if i == 0 else width, width, told[i]) for i in range(count)]
            return Stage(blocks, [attend(width) if i in attended else None for i in range(count)])

        n = blocks_per_level
        chosen = range(n) if attention_every_block else [n - 1]
        attended = [chosen if size in attention else () for size in sizes]
        outer = list(range(len(widths) - 1))
        image = self.in_channels * patch**2
        self.stem = nn.Conv2d(image, widths[0], 3, padding=1) if stem else nn.Identity()
        reads = [widths[0] if stem else image, *widths[1:]]
        self.encoder = nn.ModuleList(stage(reads[i], inner[i], n, attended[i]) for i in outer)
        self.downs = nn.ModuleList(down(inner[i], widths[i + 1]) for i in outer)
        between = range(middle_blocks - 1) if sizes[-1] in attention else ()
        self.middle = stage(reads[-1], widths[-1], middle_blocks, between)
        self.ups = nn.ModuleList(up(widths[i + 1], inner[i]) for i in reversed(outer))
        self.decoder = nn.ModuleList(
            stage(2 * inner[i], widths[i], n, attended[i] if decoder_attention else ())
            for i in reversed(outer)
        )
        self.act = activation() if out_norm else nn.Identity()
        self.norm_out = norm(widths[0]) if out_norm else nn.Identity()
        out = channels * (2 if learned_variance else 1) * patch**2
        self.conv_out = zero_(nn.Conv2d(widths[0], out, out_kernel, padding=out_kernel // 2))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, embedding: Tensor, extra: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: Images (B, channels, H, W) of sides that halve evenly, or any if built with `pad`.
            embedding: (B, time_dim), see `condition_inputs`.
            extra: Further channels (B, *, H, W), see there too.

        Returns:
            (B, channels, H, W), twice the channels with `learned_variance`; in the autocast's type
            if one is on.
        """
        x = with_extra(x, extra)
        height, width = x.shape[-2:]
        if self.pad:
            x = F.pad(x, (0, -width % self.unit, 0, -height % self.unit), mode="reflect")
        # Channels last is the layout in which CPU and GPU convolutions are fastest.
        h = F.pixel_unshuffle(x, self.patch).contiguous(memory_format=torch.channels_last)
        h = self.stem(h)
        skips = []
        for stage, down in zip(self.encoder, self.downs, strict=True):
            h = stage(h, embedding)
            skips.append(h)
            h = down(h)
        h = self.middle(h, embedding)
        for up, stage in zip(self.ups, self.decoder, strict=True):
            h = stage(torch.cat([up(h), skips.pop()], dim=1), embedding)
        h = self.conv_out(self.act(self.norm_out(h)))
        return F.pixel_shuffle(h, self.patch)[..., :height, :width]


def _sizes(image_size: int, patch: int, levels: int, pad: bool) -> tuple[int, list[int]]:
    """What must divide the image's side; sides of the feature maps from largest to smallest."""
    if levels < 1:
        raise ArgumentError("multipliers", [], "must be one number a level, e.g. [1, 2, 4]")
    check_positive(image_size=image_size, patch=patch)
    unit = patch * 2 ** (levels - 1)
    below, above = image_size // unit * unit, -(-image_size // unit) * unit
    if pad and above - image_size >= image_size:
        raise ArgumentError(
            "image_size",
            image_size,
            f"is too small: mirrored edges cannot fill it up to {above}, which patch={patch} and "
            f"{levels} levels (multipliers) need; take fewer levels",
        )
    if above != image_size and not pad:
        near = " or ".join(str(size) for size in (below, above) if size)
        raise ArgumentError(
            "image_size",
            image_size,
            f"must be a multiple of {unit}, by which patch={patch} and {levels} levels "
            f"(multipliers) divide it; take {near}, fewer levels, or pad=true",
        )
    return unit, [above // patch // 2**level for level in range(levels)]


def _check_attention(
    attention: Sequence[int], sizes: Sequence[int], widths: Sequence[int], heads: int
) -> None:
    for size in attention:
        if size not in sizes:
            known = ", ".join(map(str, sizes))
            rule = f"must be the side of a feature map; there are {known}, and smallest"
            raise ArgumentError("attention", size, rule)
        check_heads(heads, widths[list(sizes).index(size)])
