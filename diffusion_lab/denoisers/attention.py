"""Self-attention over the pixels of a feature map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion_lab.denoisers.layers import NormFactory, group_norm, zero_


class SelfAttention(nn.Module):
    """x + proj(attention(norm(x))), every pixel looking at every other.

    The output projection starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, heads: int = 4, norm: NormFactory = group_norm):
        """Build the projections.

        Args:
            channels: Channels of the feature map.
            heads: Attention heads; must divide `channels`.
            norm: Factory of the norm in front.

        Raises:
            ValueError: heads does not divide channels.
        """
        super().__init__()
        check_heads(heads, channels)
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zero_(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over (B, C, H, W)."""
        batch, channels, height, width = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = attend(q, k, v).transpose(1, 2).reshape(batch, height, width, channels)
        return x + self.proj(y).permute(0, 3, 1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for (B, heads, N, D).

    PyTorch's fused attention, but for training on a CPU: there its backward pass took seven times
    as long as the three plain operations (49 tokens of 24 channels, bfloat16).
    """
    if q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


def check_heads(heads: int, channels: int) -> None:
    """Refuse a number of heads that does not divide the channels.

    Raises:
        ValueError: naming the numbers that do.
    """
    if heads < 1 or channels % heads:
        fit = [str(k) for k in range(1, min(channels, 64) + 1) if channels % k == 0]
        raise ValueError(
            f"heads={heads}: must divide the {channels} channels of the feature map; "
            f"take one of {', '.join(fit)}"
        )
