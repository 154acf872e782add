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
    group_norm,
    silu,
    zero_,
)
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, checked


class Stage(nn.Module):
    """Blocks of one size; `attentions[i]`, where there is one, follows `blocks[i]`."""

    def __init__(self, blocks: Sequence[nn.Module], attentions: Sequence[SelfAttention | None]):
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

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: Count = 28,
        num_classes: int | None = None,
        *,
        base_channels: Count = 64,
        multipliers: Sequence[Count] = (1, 2, 4),
        blocks_per_level: Count = 1,
        middle_blocks: Count = 2,
        widen_in_blocks: bool = False,
        attention: Sequence[int] | Literal["smallest"] = "smallest",
        attention_every_block: bool = True,
        decoder_attention: bool = True,
        heads: int = 4,
        time_dim: int = 128,
        time_hidden: int | None = None,
        time_in_every_block: bool = True,
        patch: Count = 1,
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
        unit, sizes = _sizes(image_size, patch, len(multipliers), pad)
        attention = sizes[-1:] if attention == "smallest" else attention
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
            learned_variance=learned_variance,
            self_conditioning=self_conditioning,
            conditions=conditions,
        )
        self.image_size, self.patch, self.pad, self.unit = image_size, patch, pad, unit
        make_block = partial(block, norm=norm, activation=activation)
        attend = partial(SelfAttention, heads=heads, norm=norm)

        def stage(inputs: int, width: int, count: int, attended: Sequence[int] = ()) -> Stage:
            """`count` blocks, those numbered in `attended` followed by attention."""
            conditioned = [
                time_dim if time_in_every_block or i == 0 else None for i in range(count)
            ]
            blocks = [
                make_block(inputs if i == 0 else width, width, conditioned[i]) for i in range(count)
            ]
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
        out = self.out_channels * patch**2
        self.conv_out = zero_(nn.Conv2d(widths[0], out, out_kernel, padding=out_kernel // 2))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, embedding: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map images (B, channels, H, W) to (B, out_channels, H, W), in the autocast's type.

        Sides halve evenly, or are any if built with `pad`; for the other arguments see
        `condition_inputs`.
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
