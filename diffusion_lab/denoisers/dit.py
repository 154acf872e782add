"""The diffusion transformer: patches as tokens, told noise level and class by adaptive norms.

Peebles & Xie, "Scalable Diffusion Models with Transformers" (arXiv 2212.09748), the adaLN-Zero
variant, of a size for small images.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from diffusion_lab.denoisers.attention import attend, check_heads, merge_heads, split_heads
from diffusion_lab.denoisers.conditioner import (
    ConditionedNetwork,
    Conditions,
    SinusoidalEmbedding,
    with_extra,
)
from diffusion_lab.denoisers.layers import ActivationFactory, gelu, silu, zero_
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, Positive, checked


class DiTBlock(nn.Module):
    """h + gate attention(norm(h)), then h + gate MLP(norm(h)), with norms told the condition.

    Scales, shifts and gates are a linear function of the condition that starts at zero, so that
    the block starts as the identity (adaLN-Zero).
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, time_dim: int, activation: ActivationFactory
    ):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))
        self.told = zero_(nn.Linear(time_dim, 6 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (B, N, width) to the same shape, told the condition (B, time_dim)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.told(condition)[:, None].chunk(6, -1)
        tokens = self.norm1(h) * (1 + scale1) + shift1
        y = merge_heads(attend(*split_heads(self.qkv(tokens), self.heads)))
        h = h + gate1 * self.proj(y)
        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)


class DiT(ConditionedNetwork):
    """The denoiser of square images without convolutions.

    The last layer starts at zero, so that an untrained network returns 0.
    """

    @checked
    def __init__(
        self,
        channels: Count = 1,
        image_size: int = 28,
        num_classes: int | None = None,
        *,
        patch: Count = 4,
        width: Count = 128,
        depth: Count = 6,
        heads: int = 4,
        mlp_ratio: Positive = 4.0,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
        activation: ActivationFactory = gelu,
    ):
        if image_size % patch:
            fit = [str(p) for p in range(1, image_size + 1) if image_size % p == 0]
            rule = f"must divide image_size={image_size}; take one of {', '.join(fit)}"
            raise ArgumentError("patch", patch, rule)
        if width % 4:
            raise ArgumentError("width", width, "must be a multiple of 4, e.g. 128")
        check_heads(heads, width)
        super().__init__(
            channels,
            num_classes,
            time_dim,
            silu,
            learned_variance=learned_variance,
            self_conditioning=self_conditioning,
            conditions=conditions,
        )
        self.image_size, self.patch = image_size, patch
        self.stem = nn.Linear(self.in_channels * patch**2, width)
        self.register_buffer("places", _places(image_size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(
            DiTBlock(width, heads, mlp_ratio, time_dim, activation) for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.told_out = zero_(nn.Linear(time_dim, 2 * width))
        self.out = zero_(nn.Linear(width, self.out_channels * patch**2))

    def forward(self, x: Tensor, embedding: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map images (B, channels, image_size, image_size); arguments as `UNet.forward`."""
        p, side = self.patch, self.image_size // self.patch
        # Each pixel of a patch over all patches, then a view: the layout decides the last bits.
        patches = rearrange(with_extra(x, extra), "b c (h p) (w q) -> b (c p q) (h w)", p=p, q=p)
        h = self.stem(patches.transpose(1, 2)) + self.places
        for block in self.blocks:
            h = block(h, embedding)
        shift, scale = self.told_out(embedding)[:, None].chunk(2, -1)
        tokens = self.out(self.norm_out(h) * (1 + scale) + shift)
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=side, p=p, q=p)


def _places(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (side^2, width), half of the numbers each."""
    embed = SinusoidalEmbedding(width // 2)
    one = embed(torch.arange(side))
    rows = one[:, None].expand(side, side, -1)
    columns = one[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
