"""From conditions to the inputs of a network: one vector, and channels beside the image.

All networks here are a `ConditionedNetwork`, and a new kind of condition is added in this file.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion_lab.denoisers.embeddings import SinusoidalEmbedding
from diffusion_lab.denoisers.layers import ActivationFactory, zero_
from diffusion_lab.errors import ArgumentError


@dataclass(frozen=True)
class Conditions:
    """What a network is conditioned on beside the noise level and a class.

    Attributes:
        vector_dim: Numbers D of a condition vector; None for none.
        image_channels: Channels of a condition image, as large as x; 0 for none.
        two_times: Whether the network is also given the level that a sampler goes to (flow maps).

    Raises:
        ArgumentError: A number out of range.
    """

    vector_dim: int | None = None
    image_channels: int = 0
    two_times: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.vector_dim is not None and self.vector_dim < 1:
            raise ArgumentError("vector_dim", self.vector_dim, "must be at least 1, or null")
        if self.image_channels < 0:
            raise ArgumentError("image_channels", self.image_channels, "must be at least 0")


class Conditioner(nn.Module):
    """Noise level, class and further conditions in one vector.

    act(MLP(sinusoid(c_noise)) + table[label] + W vector + MLP'(sinusoid(to))). Row `num_classes` of
    the table is the null class of classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598);
    a missing label means all null. The null vector is 0, which W, without a bias, maps to 0. W and
    the last layer of MLP' start at 0, so that a network warm-started without them is unchanged.
    With `hidden=0` there is no MLP: the vector is the plain sum, not activated.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int | None,
        activation: ActivationFactory,
        hidden: int | None = None,
        conditions: Conditions | None = None,
    ):
        """Build the layers; those of further conditions last.

        Args:
            dim: Width E of the vector; even.
            num_classes: Number of classes without the null class; None for an unconditional net.
            activation: Factory of the activations between the MLP's layers and after the sum.
            hidden: Width between the MLP's two layers; None for `dim`, 0 for no MLP.
            conditions: Further conditions; None for none.

        Raises:
            ArgumentError: dim is odd, num_classes is below 1 or hidden below 0.
        """
        super().__init__()
        if num_classes is not None and num_classes < 1:
            rule = "must be at least 1, or null for a net without classes"
            raise ArgumentError("num_classes", num_classes, rule)
        if hidden is not None and hidden < 0:
            raise ArgumentError("time_hidden", hidden, "must be at least 0 (0 is no MLP), or null")
        conditions = Conditions() if conditions is None else conditions
        self.num_classes = num_classes
        try:
            self.sinusoid = SinusoidalEmbedding(dim)
        except ArgumentError as error:  # as the networks call it
            raise ArgumentError("time_dim", dim, error.rule) from None
        width = dim if hidden is None else hidden
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
        """Embed a batch.

        Args:
            c_noise: (B,), the number that says how noisy.
            label: (B,) int64 in 0..num_classes, or None for all null.
            vector: (B, D), or None for all null.
            to: (B,), c_noise of the level that is gone to; None is `c_noise`.

        Returns:
            (B, E), ready for the linear layers of the blocks.

        Raises:
            ValueError: The network was built without a condition that it is given.
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

    Attributes:
        channels: Channels of the image.
        num_classes: Number of classes without the null class, or None.
        self_conditioning: Whether it reads its own last estimate.
        two_times: Whether it is given the level that is gone to.
        in_channels: Channels of the image and the extra ones.
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
        self_conditioning: bool = False,
        conditions: Conditions | None = None,
    ):
        """Build the conditioner, before all other layers.

        Args:
            channels: Channels of the image.
            num_classes: Classes without the null class; None for an unconditional net.
            time_dim: Width of the embedding; even.
            activation: Factory of the conditioner's activations.
            time_hidden: See `Conditioner`.
            self_conditioning: Read the last estimate as further channels.
            conditions: Further conditions; None for none.
        """
        super().__init__()
        self.conditions = Conditions() if conditions is None else conditions
        self.channels, self.num_classes = channels, num_classes
        self.self_conditioning, self.two_times = self_conditioning, self.conditions.two_times
        self.in_channels = channels * (2 if self_conditioning else 1)
        self.in_channels += self.conditions.image_channels
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

        Args:
            x: What the network will be given; its shape counts.
            c_noise: See `Conditioner`, as `label`, `vector` and `to`.
            label: See there.
            vector: See there.
            image: Condition image (B, C'', *); None is the null image, 0.
            estimate: Last x0-hat, shaped like x; None is 0.
            to: See `Conditioner`.

        Raises:
            ValueError: The network was built without a condition that it is given.
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
