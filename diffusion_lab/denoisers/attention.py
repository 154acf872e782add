"""Self-attention over the pixels of a feature map."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from diffusion_lab.denoisers.layers import NormFactory, group_norm, zero_
from diffusion_lab.errors import ArgumentError


class SelfAttention(nn.Module):
    """x + proj(attention(norm(x))), every pixel looking at every other.

    The output projection starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int, heads: int = 4, norm: NormFactory = group_norm):
        super().__init__()
        check_heads(heads, channels)
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = zero_(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Attend over (B, C, H, W)."""
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        y = merge_heads(attend(*split_heads(self.qkv(tokens), self.heads)))
        return x + rearrange(self.proj(y), "b (h w) c -> b c h w", h=x.shape[2])


def split_heads(qkv: Tensor, heads: int) -> Tensor:
    """Queries, keys and values (3, B, heads, N, D) of tokens (B, N, 3 heads D)."""
    return rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)


def merge_heads(y: Tensor) -> Tensor:
    """Tokens (B, N, heads D) of the heads' answers (B, heads, N, D)."""
    return rearrange(y, "b h n d -> b n (h d)")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for (B, heads, N, D).

    PyTorch's fused attention, but in two cases. It has no forward-mode derivative. And in training
    on a CPU its backward pass took seven times as long as the three plain operations (49 tokens of
    24 channels, bfloat16).
    """
    training = q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad
    if training or any(_has_tangent(part) for part in (q, k, v)):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.softmax(dim=-1).to(v.dtype) @ v
    return F.scaled_dot_product_attention(q, k, v)


def _has_tangent(x: Tensor) -> bool:
    """Whether a forward-mode derivative is being taken with respect to x (`torch.func.jvp`)."""
    try:
        return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
    except RuntimeError:  # under vmap within jvp nobody can tell
        return True


def check_heads(heads: int, channels: int) -> None:
    """Check that the heads divide the channels; else an ArgumentError names the numbers that do."""
    if heads < 1 or channels % heads:
        fit = [str(k) for k in range(1, min(channels, 64) + 1) if channels % k == 0]
        rule = f"must divide the {channels} channels of the feature map; take one of "
        raise ArgumentError("heads", heads, rule + ", ".join(fit))
