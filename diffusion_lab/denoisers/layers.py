"""Norms and activations as small factories, so that a network is handed the one it uses.

A norm factory takes the number of channels, an activation factory takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from diffusion_lab.ranges import Count, checked

Layer = TypeVar("Layer", bound=nn.Module)
NormFactory = Callable[[int], nn.Module]
ActivationFactory = Callable[[], nn.Module]


@checked
def group_norm(
    channels: Count, group_size: Count = 16, groups: Count | None = None
) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018, arXiv 1803.08494) for any number of channels.

    Groups of 16 channels are the default because PyTorch's CPU kernel for channels-last tensors
    is vectorised over the channels of a group: smaller groups ran about ten times slower. Of the
    size of a group, or of the number of groups instead, the largest divisor of `channels` up to it
    is taken.
    """
    if groups is None:
        groups = channels // _largest_divisor(channels, group_size)
    return nn.GroupNorm(_largest_divisor(channels, groups), channels)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation over (B, H, W), with running statistics for evaluation."""
    return nn.BatchNorm2d(channels)


def no_norm(channels: int) -> nn.Identity:
    """No normalisation."""
    return nn.Identity()


def silu() -> nn.SiLU:
    """Sigmoid-weighted unit x sigmoid(x), the activation of DDPM's U-Net."""
    return nn.SiLU()


def relu() -> nn.ReLU:
    """Rectifier max(x, 0)."""
    return nn.ReLU()


def gelu() -> nn.GELU:
    """Gaussian-weighted unit x Phi(x), in its tanh form."""
    return nn.GELU(approximate="tanh")


def zero_(module: Layer) -> Layer:
    """Set all parameters of a module to 0 and return it: a residual branch that starts silent."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def _largest_divisor(number: int, at_most: int) -> int:
    return next(k for k in range(min(number, at_most), 0, -1) if number % k == 0)
