"""A multilayer perceptron for points and other small vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_lab.denoisers.embeddings import ConditionEmbedding
from diffusion_lab.denoisers.inputs import with_estimate
from diffusion_lab.denoisers.layers import ActivationFactory, silu, zero_


class MLP(nn.Module):
    """Residual MLP: h <- h + Linear(act(Linear(act(h)) + condition)), for data of any shape.

    Attributes:
        channels: Numbers in one sample.
        num_classes: Number of classes without the null class, or None.
        self_conditioning: Whether it reads its own last estimate.
    """

    def __init__(
        self,
        shape: Sequence[int] = (2,),
        num_classes: int | None = None,
        *,
        width: int = 128,
        blocks: int = 3,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        activation: ActivationFactory = silu,
    ):
        """Build the network.

        Args:
            shape: Shape of one sample, (2,) for points in the plane; flattened inside.
            num_classes: Classes without the null class; None for an unconditional net.
            width: Hidden units.
            blocks: Residual blocks of two layers.
            time_dim: Width of the condition vector; even.
            learned_variance: Twice as many numbers out along the first dimension; the second half
                says the variance.
            self_conditioning: Twice as many in; the second half is the last estimate.
            activation: Factory of activations (layers.py).

        Raises:
            ValueError: a number out of range.
        """
        super().__init__()
        numbers = [("width", width), ("blocks", blocks), ("shape", min(shape, default=0))]
        for name, value in numbers:
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        size = math.prod(shape)
        self.channels, self.num_classes = size, num_classes
        self.embed = ConditionEmbedding(time_dim, num_classes, activation)
        self.self_conditioning = self_conditioning
        self.out_shape = (shape[0] * (2 if learned_variance else 1), *shape[1:])
        self.stem = nn.Linear(size * (2 if self_conditioning else 1), width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.told = nn.ModuleList(nn.Linear(time_dim, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.act = activation()
        self.out = zero_(nn.Linear(width, math.prod(self.out_shape)))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        estimate: Tensor | None = None,
    ) -> Tensor:
        """Map (B, *shape) to the same shape; the other arguments as in `UNet.forward`."""
        condition = self.embed(c_noise, label)
        h = self.stem(with_estimate(x, estimate, self.self_conditioning).flatten(1))
        for first, told, second in zip(self.first, self.told, self.second, strict=True):
            h = h + second(self.act(first(self.act(h)) + told(condition)))
        return self.out(self.act(h)).unflatten(1, self.out_shape)
