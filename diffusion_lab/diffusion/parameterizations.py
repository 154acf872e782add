r"""What the network predicts, as two numbers (a, b) of the noise level.

A network target is F = a x0 + b eps. With x_t = alpha x0 + sigma eps and D = alpha b - sigma a,

    x0 = (b x_t - sigma F) / D,

so a parameterization is (a, b) and nothing more: no converters between targets. Where D = 0,
F carries no information that x_t has not, and x0 cannot be recovered: such a combination of
target and schedule is refused when it is configured.

The error on F and on x0 differ by |F - F*| = |D| / sigma |x0 - x0*|, which is how loss weights
are carried over (see `objectives`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError


class Parameterization(ABC):
    """A target F = a x0 + b eps."""

    @abstractmethod
    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(a, b) at the level, float64, of the level's shape."""

    def determinant(self, level: Level) -> Tensor:
        """D = alpha b - sigma a."""
        a, b = self.weights(level)
        return level.alpha * b - level.sigma * a

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule on which x0 cannot be recovered at every trained time.

        Raises:
            ValueError: D = 0 at a trained time; names the time and what to choose instead.
        """
        count = 1001 if schedule.steps is None else schedule.steps + 1
        level = schedule(torch.linspace(0, 1, count, dtype=torch.float64)[1:])
        zero = self.determinant(level).abs() < 1e-12
        if bool(zero.any()):
            raise ValueError(
                f"{type(self).__name__} cannot be used with {type(schedule).__name__}: at "
                f"t = {float(level.t[zero][0]):g} alpha is 0, so predicting the noise says nothing "
                "of the image. Predict v, velocity or x0"
            )


class Eps(Parameterization):
    """F = eps (Ho et al., arXiv 2006.11239, eq. 14). D = alpha."""

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(0, 1)."""
        return torch.zeros_like(level.alpha), torch.ones_like(level.alpha)


class X0(Parameterization):
    """F = x0. D = -sigma."""

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(1, 0)."""
        return torch.ones_like(level.alpha), torch.zeros_like(level.alpha)


class V(Parameterization):
    """F = alpha eps - sigma x0 (Salimans & Ho, arXiv 2202.00512, section 4).

    D = alpha^2 + sigma^2.
    """

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(-sigma, alpha)."""
        return -level.sigma, level.alpha


class Velocity(Parameterization):
    """F = eps - x0, the velocity of rectified flow, on every schedule. D = alpha + sigma."""

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(-1, 1)."""
        return -torch.ones_like(level.alpha), torch.ones_like(level.alpha)


class EDM(Parameterization):
    r"""The preconditioned target of Karras et al. (arXiv 2206.00364, table 1), on every schedule.

    F = (sigma x0 / data_std - alpha data_std eps) / q with q^2 = alpha^2 data_std^2 + sigma^2, of
    unit variance for data of variance data_std^2. D = -q / data_std, so that

        x0 = c_skip x_t + c_out F,  c_skip = alpha data_std^2 / q^2,  c_out = sigma data_std / q,

    which at alpha = 1 are theirs. Use it with the model's `input_scaling` (c_in = 1 / q) and
    centred data (its `data_mean`): the derivation supposes a mean of 0.

    Args:
        data_std: Standard deviation of the (centred) data, > 0.
    """

    def __init__(self, data_std: float) -> None:
        if not data_std > 0:
            raise ArgumentError(
                "data_std", data_std, "must be positive; MNIST in [-1, 1] has 0.616"
            )
        self.data_std = data_std

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(sigma / (data_std q), -alpha data_std / q)."""
        q = torch.hypot(level.alpha * self.data_std, level.sigma)
        return level.sigma / (self.data_std * q), -level.alpha * self.data_std / q
