"""What tells a network how noisy its input is and which class is meant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.layers import ActivationFactory


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
            ValueError: dim is odd or below 2.
        """
        super().__init__()
        if dim < 2 or dim % 2:
            near = f"{max(dim - 1, 2)} or {max(dim + 1, 4)}"
            raise ValueError(f"dim={dim}: a sine and a cosine each need half; take {near}")
        self.dim = dim
        exponent = torch.arange(dim // 2, dtype=torch.float32) / (dim // 2)
        frequencies = torch.exp(-math.log(max_period) * exponent)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Embed (B,) numbers as float32 (B, dim): cosines, then sines."""
        angle = c_noise.float()[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class ConditionEmbedding(nn.Module):
    """Noise level and class in one vector: act(MLP(sinusoid(c_noise)) + table[label]).

    Row `num_classes` of the table is the null class of classifier-free guidance (Ho & Salimans
    2022, arXiv 2207.12598); a missing label means all null. With `hidden=0` there is no MLP: the
    vector is the plain sinusoid (plus the class), not activated.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int | None,
        activation: ActivationFactory,
        hidden: int | None = None,
    ):
        """Build the MLP and the table.

        Args:
            dim: Width of the vector; even.
            num_classes: Number of classes without the null class; None for an unconditional net.
            activation: Factory of the activations between the MLP's layers and after the sum.
            hidden: Width between the MLP's two layers; None for `dim`, 0 for no MLP.

        Raises:
            ValueError: dim is odd, num_classes is below 1 or hidden below 0.
        """
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise ValueError(
                f"num_classes={num_classes}: must be at least 1, or null for a net without classes"
            )
        if hidden is not None and hidden < 0:
            raise ValueError(f"time_hidden={hidden}: must be at least 0 (0 is no MLP), or null")
        self.num_classes = num_classes
        self.sinusoid = SinusoidalEmbedding(dim)
        hidden = dim if hidden is None else hidden
        self.mlp = (
            nn.Sequential(nn.Linear(dim, hidden), activation(), nn.Linear(hidden, dim))
            if hidden
            else nn.Identity()
        )
        self.act = activation() if hidden else nn.Identity()
        self.table = nn.Embedding(num_classes + 1, dim) if num_classes is not None else None

    def forward(self, c_noise: Tensor, label: Tensor | None) -> Tensor:
        """Embed a batch.

        Args:
            c_noise: (B,), the number that says how noisy.
            label: (B,) long in 0..num_classes, or None for all null. A net without classes
                takes None only.

        Returns:
            (B, dim), ready for the linear layers of the blocks.

        Raises:
            ValueError: a label is given to a net without classes.
        """
        vector = self.mlp(self.sinusoid(c_noise))
        if self.table is None:
            if label is not None:
                raise ValueError("label: this network has no classes; pass label=None")
        elif label is None:
            vector = vector + self.table.weight[self.num_classes]
        else:
            vector = vector + self.table(label)
        return self.act(vector)
