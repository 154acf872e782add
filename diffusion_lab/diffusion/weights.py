r"""Loss weights and errors.

A weight is stated once, as w on the squared x0 error, and reaches the network's target as
w sigma^2 / D^2 (D of `parameterizations`): min-SNR is then one formula for every target.
`ConstantWeight` is the exception that papers call "simple": 1 on F itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.ranges import NonNegative, Positive, checked


class Weight(ABC):
    """A weight on the squared x0 error."""

    @abstractmethod
    def on_x0(self, level: Level) -> Tensor:
        """w(level), float64, of the level's shape."""

    def on_target(self, level: Level, parameterization: Parameterization) -> Tensor:
        """The same weight on the squared error of F: w sigma^2 / D^2."""
        return self.on_x0(level) * (level.sigma / parameterization.determinant(level)) ** 2


class ConstantWeight(Weight):
    """1 on the network's own target ("L_simple", Ho et al., eq. 14)."""

    def on_x0(self, level: Level) -> Tensor:
        """Not a function of the level alone; see `on_target`."""
        raise NotImplementedError("the constant weight is stated on the target, not on x0")

    def on_target(self, level: Level, parameterization: Parameterization) -> Tensor:
        """1."""
        return torch.ones_like(level.alpha)


class TruncatedSNR(Weight):
    """max(SNR, 1) on x0: the noisiest levels still count (Salimans & Ho, 2202.00512, section 4)."""

    def on_x0(self, level: Level) -> Tensor:
        """max(alpha^2 / sigma^2, 1)."""
        return ((level.alpha / level.sigma) ** 2).clamp(min=1.0)


class MinSNR(Weight):
    """min(SNR, gamma) on x0 (Hang et al., arXiv 2303.09556), right for every target."""

    @checked
    def __init__(self, gamma: Positive = 5.0) -> None:
        self.gamma = gamma

    def on_x0(self, level: Level) -> Tensor:
        """min(alpha^2 / sigma^2, gamma)."""
        return ((level.alpha / level.sigma) ** 2).clamp(max=self.gamma)


class P2(Weight):
    """SNR / (k + SNR)^gamma on x0: less weight where only details are missing.

    Choi et al., "Perception Prioritized Training" (arXiv 2204.00227, eq. 8): the simple loss on
    eps, which is SNR on x0, divided by (k + SNR)^gamma.
    """

    @checked
    def __init__(self, gamma: NonNegative = 1.0, k: Positive = 1.0) -> None:
        self.gamma, self.k = gamma, k

    def on_x0(self, level: Level) -> Tensor:
        """SNR / (k + SNR)^gamma."""
        snr = (level.alpha / level.sigma) ** 2
        return snr / (self.k + snr) ** self.gamma


class SigmoidWeight(Weight):
    """sigmoid(bias - log_snr) on eps (Kingma & Gao, arXiv 2303.00848, section 4).

    It falls with the SNR, so that fine details count less. Their integral runs over log_snr; where
    times are not drawn evenly in it, the density of the timestep distribution multiplies this
    weight.
    """

    def __init__(self, bias: float = 2.0) -> None:
        self.bias = bias

    def on_x0(self, level: Level) -> Tensor:
        """SNR sigmoid(bias - log_snr) = e^bias sigmoid(log_snr - bias)."""
        return math.exp(self.bias) * torch.sigmoid(level.log_snr - self.bias)


class EDMWeight(Weight):
    """(sigma^2 + alpha^2 d^2) / (sigma d)^2 on x0: 1 on the EDM target.

    Karras et al. (arXiv 2206.00364, table 1), where alpha = 1.
    """

    @checked
    def __init__(self, data_std: Positive) -> None:
        self.data_std = data_std

    def on_x0(self, level: Level) -> Tensor:
        """1 / d^2 + SNR."""
        return self.data_std**-2 + (level.alpha / level.sigma) ** 2


class SquaredError:
    """(F - F*)^2."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Elementwise, (B, *)."""
        return (prediction - target) ** 2


class AbsoluteError:
    """|F - F*|."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Elementwise, (B, *)."""
        return (prediction - target).abs()


class HuberError:
    """Quadratic within delta, linear beyond (torch's huber loss, scaled to (F - F*)^2 within)."""

    @checked
    def __init__(self, delta: Positive = 1.0) -> None:
        self.delta = delta

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Elementwise, (B, *)."""
        huber = torch.nn.functional.huber_loss
        return 2.0 * huber(prediction, target, reduction="none", delta=self.delta)
