"""A multilayer perceptron for points and other small vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from diffusion_lab.denoisers.conditioner import ConditionedNetwork, Conditions, with_extra
from diffusion_lab.denoisers.layers import ActivationFactory, silu, zero_
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, checked


class MLP(ConditionedNetwork):
    """Residual MLP: h <- h + Linear(act(Linear(act(h)) + condition)), for data of any shape.

    Channels are those of the first dimension of a sample: the numbers of a point.
    """

    @checked
    def __init__(
        self,
        shape: Sequence[Count] = (2,),
        num_classes: int | None = None,
        *,
        width: Count = 128,
        blocks: Count = 3,
        time_dim: int = 128,
        learned_variance: bool = False,
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
        activation: ActivationFactory = silu,
    ):
        if not shape:
            raise ArgumentError("shape", [], "must have at least one dimension")
        super().__init__(
            shape[0],
            num_classes,
            time_dim,
            activation,
            learned_variance=learned_variance,
            self_conditioning=self_conditioning,
            conditions=conditions,
        )
        self.out_shape = (self.out_channels, *shape[1:])
        self.stem = nn.Linear(self.in_channels * math.prod(shape[1:]), width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.told = nn.ModuleList(nn.Linear(time_dim, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.act = activation()
        self.out = zero_(nn.Linear(width, math.prod(self.out_shape)))

    def forward(self, x: Tensor, embedding: Tensor, extra: Tensor | None = None) -> Tensor:
        """Map (B, *shape) to the same shape; the other arguments as in `UNet.forward`."""
        h = self.stem(with_extra(x, extra).flatten(1))
        for first, told, second in zip(self.first, self.told, self.second, strict=True):
            h = h + second(self.act(first(self.act(h)) + told(embedding)))
        return self.out(self.act(h)).unflatten(1, self.out_shape)
