r"""Training objectives: which t, which weight, which error.

The loss of one image is  weight(t) * mean over its pixels of error(F, F*),  with t drawn by the
time law, eps ~ N(0, I) and x_t = alpha x0 + sigma eps. A weight is stated once, as w on the
squared x0 error, and reaches the network's target as  w sigma^2 / D^2  (D of `parameterizations`):
min-SNR is then one formula for every target. `ConstantWeight` is the exception
that papers call "simple": 1 on F itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, combine, marginal
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule


class TimeLaw(ABC):
    """The distribution of training times."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Time in [0, 1] at probability u in [0, 1)."""

    def __call__(self, schedule: Schedule, noise: Noise, n: int) -> Tensor:
        """`n` trained times of the schedule; float64 on the CPU, shape (n,)."""
        t = self.quantile(noise.uniform(n))
        if schedule.steps is not None:  # t in [(k-1)/T, k/T) is step k: each gets its share
            t = (torch.floor(t * schedule.steps) + 1) / schedule.steps
            return t.clamp(max=1.0)
        return schedule.t_min + (schedule.t_max - schedule.t_min) * t


class UniformTime(TimeLaw):
    """t ~ U(0, 1); on a discrete schedule every step is equally likely (Ho et al., algorithm 1)."""

    def quantile(self, u: Tensor) -> Tensor:
        """The identity."""
        return u


class LogitNormalTime(TimeLaw):
    """logit(t) ~ N(mean, std^2) (Esser et al., arXiv 2403.03206, eq. 19).

    Args:
        mean: Location; positive leans to noise.
        std: Scale, > 0.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if not std > 0:
            raise ValueError(f"std={std} must be positive; the paper takes 1")
        self.mean = mean
        self.std = std

    def quantile(self, u: Tensor) -> Tensor:
        """sigmoid(mean + std Phi^-1(u))."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


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


class MinSNR(Weight):
    """min(SNR, gamma) on x0 (Hang et al., arXiv 2303.09556), right for every target.

    Args:
        gamma: The cut, > 0; the paper takes 5.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        if not gamma > 0:
            raise ValueError(f"gamma={gamma} must be positive; the paper takes 5")
        self.gamma = gamma

    def on_x0(self, level: Level) -> Tensor:
        """min(alpha^2 / sigma^2, gamma)."""
        return ((level.alpha / level.sigma) ** 2).clamp(max=self.gamma)


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
    """Quadratic within delta, linear beyond (torch's huber loss, scaled to (F - F*)^2 within).

    Args:
        delta: Where it turns, > 0.
    """

    def __init__(self, delta: float = 1.0) -> None:
        if not delta > 0:
            raise ValueError(f"delta={delta} must be positive")
        self.delta = delta

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Elementwise, (B, *)."""
        huber = torch.nn.functional.huber_loss
        return 2.0 * huber(prediction, target, reduction="none", delta=self.delta)


class Objective:
    """A training loss: time law, weight and error.

    Args:
        time: Which times are trained.
        weight: How much each counts.
        error: Elementwise error of the network's output, e.g. `SquaredError()`.
    """

    def __init__(
        self, time: TimeLaw, weight: Weight, error: SquaredError | AbsoluteError | HuberError
    ) -> None:
        self.time = time
        self.weight = weight
        self.error = error

    def __call__(
        self,
        model: GaussianDiffusion,
        x0: Tensor,
        noise: Noise,
        label: Tensor | None = None,
        **cond: Tensor,
    ) -> Tensor:
        """Loss of each image, shape (B,), for x0 (B, *)."""
        level = model.schedule(self.time(model.schedule, noise, len(x0)))
        eps = noise.normal(x0)
        raw = model(marginal(x0, eps, level), level, label, **cond).raw
        error = self.error(raw, model.target(x0, eps, level)).flatten(1).mean(1)
        return combine((self.weight.on_target(level, model.parameterization), error))
