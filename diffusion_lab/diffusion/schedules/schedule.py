r"""Noise schedules: t in [0, 1] -> (alpha, sigma), with t = 0 data and t = 1 noise.

A schedule fixes how fast the signal-to-noise ratio falls, and nothing else: not what the network
predicts, not which times are trained, not how sampling steps. `steps` makes it discrete: an
integer T restricts training to the nodes t = k/T, k = 1..T, and None leaves time continuous.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.ranges import Count, checked

CONTINUOUS_T_MIN = 1e-3
"""Smallest time that a continuous schedule trains on."""


class Schedule(ABC):
    """An immutable map from time to noise level; times in [t_min, t_max] are trained."""

    @checked
    def __init__(self, steps: Count | None = None) -> None:
        self.steps = steps
        self.t_min = CONTINUOUS_T_MIN if steps is None else 1.0 / steps
        self.t_max = 1.0

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes (alpha, sigma) at times t (float64, any shape)."""

    @abstractmethod
    def time_of(self, log_snr: Tensor) -> Tensor:
        """Inverse of `Level.log_snr` in t; exact at both ends."""

    def __call__(self, t: Tensor | float) -> Level:
        """The level at t, a number or a tensor of times in [0, 1]; float64 on the CPU."""
        t = torch.as_tensor(t, dtype=torch.float64, device="cpu")
        return Level(t, *self.alpha_sigma(t))

    def snap(self, t: Tensor) -> Tensor:
        """The nearest trained time."""
        if self.steps is not None:
            t = torch.round(t * self.steps) / self.steps
        return t.clamp(self.t_min, self.t_max)

    def conditioning(self, level: Level) -> Tensor:
        """c_noise, the network's number for the level: k in 1..T where discrete, else 1000 t."""
        return level.t * (1000.0 if self.steps is None else self.steps)

    def preserving(self, level: Level) -> Tensor:
        """Whether alpha^2 + sigma^2 = 1, bool, of the level's shape."""
        return (level.alpha**2 + level.sigma**2 - 1.0).abs() < 1e-9

    def prior_std(self, level: Level) -> Tensor:
        """Standard deviation that sampling starts with: 1 if variance preserving, else sigma."""
        return torch.where(self.preserving(level), torch.ones_like(level.sigma), level.sigma)
