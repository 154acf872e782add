"""From conditions to the inputs of a network: one vector, and channels beside the image.

All networks here are a `ConditionedNetwork`, and a new kind of condition is added in this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.layers import ActivationFactory, zero_
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, Natural, checked


@checked
@dataclass(frozen=True)
class Conditions:
    """What a network is conditioned on beside the noise level and a class.

    Attributes:
        vector_dim: Numbers D of a condition vector; None for none.
        image_channels: Channels of a condition image, as large as x; 0 for none.
        two_times: Whether the network is also given the level that a sampler goes to (flow maps).
    """

    vector_dim: Count | None = None
    image_channels: Natural = 0
    two_times: bool = False


class SinusoidalEmbedding(nn.Module):
    """Cosines and sines of a number at geometrically spaced frequencies.

    Ho et al. 2020 (arXiv 2006.11239), after Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    Frequency i of dim/2 is max_period^(-i / (dim/2)): the fastest turns once in 2 pi units of
    c_noise, the slowest in about 2 pi max_period.
    """

    def __init__(self, dim: int, max_period: float = 10_000.0):
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


class Conditioner(nn.Module):
    """Noise level, class and further conditions in one vector.

    act(MLP(sinusoid(c_noise)) + table[label] + W vector + MLP'(sinusoid(to))). Row `num_classes` of
    the table is the null class of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598);
    a missing label means all null. The null vector is 0, which W, without a bias, maps to 0. W and
    the last layer of MLP' start at 0, so that a network warm-started without them is unchanged.
    With `time_hidden=0` there is no MLP: the vector is the plain sum, not activated.
    """

    @checked
    def __init__(
        self,
        dim: int,
        num_classes: Count | None,
        activation: ActivationFactory,
        time_hidden: Natural | None = None,
        conditions: Conditions | None = None,
    ):
        super().__init__()
        conditions = Conditions() if conditions is None else conditions
        self.num_classes = num_classes
        try:
            self.sinusoid = SinusoidalEmbedding(dim)
        except ArgumentError as error:  # as the networks call it
            raise ArgumentError("time_dim", dim, error.rule) from None
        width = dim if time_hidden is None else time_hidden
        self.mlp = _mlp(dim, width, activation) if width else nn.Identity()
        self.act = activation() if width else nn.Identity()
        self.table = nn.Embedding(num_classes + 1, dim) if num_classes is not None else None
        self.vector: nn.Linear | None = None
        if conditions.vector_dim is not None:
            self.vector = zero_(nn.Linear(conditions.vector_dim, dim, bias=False))
        self.target: nn.Sequential | None = None
        if conditions.two_times:
            self.target = _mlp(dim, width or dim, activation)
            zero_(self.target[-1])

    def forward(
        self,
        c_noise: Tensor,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        to: Tensor | None = None,
    ) -> Tensor:
        """The embedding (B, E) of levels (B,), labels (B,) int64 and vectors (B, D), None for null.

        `to` (B,) is the c_noise of the level that is gone to; None is `c_noise`. A condition that
        the network was built without is a ValueError.
        """
        embedded: Tensor = self.mlp(self.sinusoid(c_noise))
        if self.table is None:
            if label is not None:
                raise ValueError("label: this network has no classes; pass label=None")
        elif label is None:
            embedded = embedded + self.table.weight[self.num_classes]
        else:
            embedded = embedded + self.table(label)
        if vector is not None:
            if self.vector is None:
                raise ValueError("vector: this network was built without vector_dim")
            embedded = embedded + self.vector(vector)
        if self.target is not None:
            embedded = embedded + self.target(self.sinusoid(c_noise if to is None else to))
        elif to is not None:
            raise ValueError("to: this network was built without two_times")
        activated: Tensor = self.act(embedded)
        return activated


def _mlp(dim: int, hidden: int, activation: ActivationFactory) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, hidden), activation(), nn.Linear(hidden, dim))


class ConditionedNetwork(nn.Module):
    """A network whose inputs are (x, embedding, extra channels or None).

    Its conditioner is built before all other layers.

    Attributes:
        channels: Channels of the image.
        in_channels: Channels of the image and the extra ones.
        out_channels: Channels of the image, twice as many with a learned variance.
        num_classes: Number of classes without the null class, or None.
        self_conditioning: Whether it reads its own last estimate.
        two_times: Whether it is given the level that is gone to.
        embed: Makes the embedding.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int | None,
        time_dim: int,
        activation: ActivationFactory,
        *,
        time_hidden: int | None = None,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
    ):
        super().__init__()
        self.conditions = Conditions() if conditions is None else conditions
        self.channels, self.num_classes = channels, num_classes
        self.self_conditioning, self.two_times = self_conditioning, self.conditions.two_times
        self.in_channels = channels * (2 if self_conditioning else 1)
        self.in_channels += self.conditions.image_channels
        self.out_channels = channels * (2 if learned_variance else 1)
        self.embed = Conditioner(time_dim, num_classes, activation, time_hidden, self.conditions)

    def condition_inputs(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        *,
        vector: Tensor | None = None,
        image: Tensor | None = None,
        estimate: Tensor | None = None,
        to: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The inputs beside x (B, C, *): embedding (B, E), and extra channels (B, C', *) or None.

        The image (B, C'', *) and the estimate, which is shaped like x, are 0 where None; the rest
        is as in `Conditioner`. A condition that the network was built without is a ValueError.
        """
        extra = []
        if self.self_conditioning:
            extra.append(torch.zeros_like(x) if estimate is None else estimate)
        elif estimate is not None:
            raise ValueError("estimate: this network was built without self_conditioning")
        channels = self.conditions.image_channels
        if channels:
            blank = len(x), channels, *x.shape[2:]
            extra.append(x.new_zeros(blank) if image is None else image)
        elif image is not None:
            raise ValueError("image: this network was built without image_channels")
        beside = torch.cat(extra, dim=1) if extra else None
        return self.embed(c_noise, label, vector, to), beside


def with_extra(x: Tensor, extra: Tensor | None) -> Tensor:
    """x (B, C, *) with the extra channels behind its own."""
    return x if extra is None else torch.cat([x, extra], dim=1)
