r"""What the network predicts, as two numbers (a, b) of the noise level.

A network target is F = a x0 + b eps. With x_t = alpha x0 + sigma eps and D = alpha b - sigma a,

    x0 = (b x_t - sigma F) / D,

so a parameterization is (a, b) and nothing more: no converters between targets. Where D = 0, F
carries no information that x_t has not, and x0 cannot be recovered (see `compatibility`).

The errors of F and x0 differ by |F - F*| = |D| / sigma |x0 - x0*|: so do loss `weights` reach F.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.ranges import Positive, checked


class Parameterization(ABC):
    """A target F = a x0 + b eps."""

    @abstractmethod
    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(a, b) at the level, float64, of the level's shape."""

    def determinant(self, level: Level) -> Tensor:
        """D = alpha b - sigma a."""
        a, b = self.weights(level)
        return level.alpha * b - level.sigma * a


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
    """F = alpha eps - sigma x0 (Salimans & Ho, 2202.00512, section 4). D = alpha^2 + sigma^2."""

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(-sigma, alpha)."""
        return -level.sigma, level.alpha


class Velocity(Parameterization):
    """F = eps - x0, the velocity of rectified flow, on every schedule. D = alpha + sigma."""

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(-1, 1)."""
        return -torch.ones_like(level.alpha), torch.ones_like(level.alpha)


class EDM(Parameterization):
    r"""F = (sigma x0 / d - alpha d eps) / q, q^2 = alpha^2 d^2 + sigma^2, d the data's std.

    Karras et al. (arXiv 2206.00364, table 1) on every schedule: unit variance, D = -q / d, and
    x0 = c_skip x_t + c_out F with c_skip = alpha d^2 / q^2, c_out = sigma d / q. It supposes the
    model's `data_mean` and `input_scaling`, c_in = 1 / q.
    """

    @checked
    def __init__(self, data_std: Positive) -> None:
        self.data_std = data_std

    def weights(self, level: Level) -> tuple[Tensor, Tensor]:
        """(sigma / (d q), -alpha d / q)."""
        q = torch.hypot(level.alpha * self.data_std, level.sigma)
        return level.sigma / (self.data_std * q), -level.alpha * self.data_std / q
