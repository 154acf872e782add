"""Numbers as vectors of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lab.errors import ArgumentError


class SinusoidalEmbedding(nn.Module):
    """Cosines and sines of a number at geometrically spaced frequencies.

    Ho et al. 2020 (arXiv 2006.11239), after Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    Frequency i of dim/2 is max_period^(-i / (dim/2)): the fastest turns once in 2 pi units of
    c_noise, the slowest in about 2 pi max_period.
    """

    def __init__(self, dim: int, max_period: float = 10_000.0):
        """Keep the frequencies.

        Args:
            dim: Numbers in the embedding; even, at least 2.
            max_period: Ratio of the fastest to the slowest frequency.

        Raises:
            ArgumentError: dim is odd or below 2.
        """
        super().__init__()
        if dim < 2 or dim % 2:
            near = f"{max(dim - 1, 2)} or {max(dim + 1, 4)}"
            raise ArgumentError("dim", dim, f"must be even, half sines, half cosines; take {near}")
        self.dim = dim
        exponent = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2)
        frequencies = torch.exp(-math.log(max_period) * exponent)
        self.frequencies: Tensor
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed (B,) numbers as (B, dim): cosines, then sines; float32, or float64 as it is."""
        number = c_noise if c_noise.dtype == torch.float64 else c_noise.float()
        angle = number[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)
