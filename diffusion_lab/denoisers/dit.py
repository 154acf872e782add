"""The diffusion transformer: patches as tokens, told noise level and class by adaptive norms.

Peebles & Xie, "Scalable Diffusion Models with Transformers" (arXiv 2212.09748), the adaLN-Zero
variant, of a size for small images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.attention import attend, check_heads
from diffusion_lab.denoisers.embeddings import ConditionEmbedding, SinusoidalEmbedding
from diffusion_lab.denoisers.inputs import with_estimate
from diffusion_lab.denoisers.layers import ActivationFactory, gelu, silu, zero_


class DiTBlock(nn.Module):
    """h + gate attention(norm(h)), then h + gate MLP(norm(h)), with norms told the condition.

    Scales, shifts and gates are a linear function of the condition that starts at zero, so that
    the block starts as the identity (adaLN-Zero).
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, time_dim: int, activation: ActivationFactory
    ):
        """Build the layers; `heads` divides `width`."""
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
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = h + gate1 * self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """The denoiser of square images without convolutions.

    The last layer starts at zero, so that an untrained network returns 0.

    Attributes:
        channels: Channels of the image.
        num_classes: Number of classes without the null class, or None.
        self_conditioning: Whether it reads its own last estimate.
    """

    def __init__(
        self,
        channels: int = 1,
        image_size: int = 28,
        num_classes: int | None = None,
        *,
        patch: int = 4,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        activation: ActivationFactory = gelu,
    ):
        """Build the network; cheap, and possible on the meta device.

        Args:
            channels: Channels of the image.
            image_size: Height and width in pixels.
            num_classes: Classes without the null class; None for an unconditional net.
            patch: Side of the squares that become tokens; must divide `image_size`.
            width: Numbers in a token; a multiple of 4 that `heads` divides.
            depth: Blocks.
            heads: Attention heads.
            mlp_ratio: Width inside the blocks' MLP over `width`, > 0.
            time_dim: Width of the condition vector; even.
            learned_variance: Twice the channels out; the second half says the variance.
            self_conditioning: Twice the channels in; the second half is the last estimate.
            activation: Factory of the MLPs' activation (layers.py).

        Raises:
            ValueError: sizes or numbers that do not fit, with those that do.
        """
        super().__init__()
        for name, value in (("channels", channels), ("patch", patch), ("depth", depth)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if image_size % patch:
            fit = [str(p) for p in range(1, image_size + 1) if image_size % p == 0]
            raise ValueError(
                f"patch={patch}: must divide image_size={image_size}; take one of {', '.join(fit)}"
            )
        if width % 4 or width < 4:
            raise ValueError(f"width={width}: must be a multiple of 4, e.g. 128")
        if not mlp_ratio > 0:
            raise ValueError(f"mlp_ratio={mlp_ratio}: must be positive, e.g. 4")
        check_heads(heads, width)
        self.channels, self.num_classes = channels, num_classes
        self.image_size, self.patch = image_size, patch
        self.self_conditioning = self_conditioning
        inputs = channels * (2 if self_conditioning else 1)
        self.out_channels = channels * (2 if learned_variance else 1)
        self.embed = ConditionEmbedding(time_dim, num_classes, silu)
        self.stem = nn.Linear(inputs * patch**2, width)
        self.register_buffer("places", _places(image_size // patch, width), persistent=False)
        self.blocks = nn.ModuleList(
            DiTBlock(width, heads, mlp_ratio, time_dim, activation) for _ in range(depth)
        )
        self.norm_out = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.told_out = zero_(nn.Linear(time_dim, 2 * width))
        self.out = zero_(nn.Linear(width, self.out_channels * patch**2))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        """Map images (B, channels, image_size, image_size); arguments as `UNet.forward`."""
        x = with_estimate(x, estimate, self.self_conditioning)
        side = self.image_size // self.patch
        patches = nn.functional.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        h = self.stem(patches) + self.places
        condition = self.embed(c_noise, label)
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.told_out(condition)[:, None].chunk(2, -1)
        tokens = self.out(self.norm_out(h) * (1 + scale) + shift)
        tokens = tokens.transpose(1, 2).unflatten(2, (side, side))
        return nn.functional.pixel_shuffle(tokens, self.patch)


def _places(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column, (side^2, width), half of the numbers each."""
    embed = SinusoidalEmbedding(width // 2)
    one = embed(torch.arange(side))
    rows = one[:, None].expand(side, side, -1)
    columns = one[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
