r"""Schedules that are formulas of t; `steps` restricts them to the nodes k/T."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.diffusion.schedules.schedule import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Positive, checked


class ContinuousVP(Schedule):
    r"""The variance preserving SDE with linear beta(t) (Song et al., arXiv 2011.13456, eq. 33).

    alpha = exp(-(beta_max - beta_min) t^2 / 4 - beta_min t / 2), the limit of many `LinearBetas`
    of beta_min / T ... beta_max / T.
    """

    def __init__(
        self, steps: int | None = None, beta_min: float = 0.1, beta_max: float = 20.0
    ) -> None:
        super().__init__(steps)
        if not 0 < beta_min <= beta_max:
            rule = f"must be above 0 and at most beta_max={beta_max}; the paper takes 0.1 and 20"
            raise ArgumentError("beta_min", beta_min, rule)
        self.beta_min, self.beta_max = beta_min, beta_max

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar) and sqrt(1 - alpha_bar), the latter without cancellation."""
        log_abar = -(self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t
        return torch.exp(0.5 * log_abar), torch.sqrt(-torch.expm1(log_abar))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The root of a quadratic in t: -ln alpha_bar = softplus(-log_snr)."""
        y = torch.nn.functional.softplus(-torch.as_tensor(log_snr, dtype=torch.float64))
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * y)
        return (2 * y / (self.beta_min + root)).clamp(max=1.0)


class ContinuousCosine(Schedule):
    r"""tan(angle) = shift tan(pi t / 2), alpha = cos(angle), sigma = sin(angle).

    Variance preserving, alpha(1) = 0 exactly; shift = 1 is the unclipped cosine schedule without
    offset. The log-SNR is -2 ln tan(pi t / 2) - 2 ln shift (Hoogeboom et al., "Simple Diffusion",
    arXiv 2301.11093, eq. 5 and 6: an image d pixels wide takes shift = d / 64).
    """

    @checked
    def __init__(self, steps: int | None = None, shift: Positive = 1.0) -> None:
        super().__init__(steps)
        self.shift = shift

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Exact at both ends: cos is taken as the sine of the complement."""
        cos, sin = torch.sin((1 - t) * (math.pi / 2)), torch.sin(t * (math.pi / 2))
        if self.shift == 1:
            return cos, sin
        sin = self.shift * sin
        norm = torch.hypot(cos, sin)
        return cos / norm, sin / norm

    def time_of(self, log_snr: Tensor) -> Tensor:
        """t = (2/pi) arctan(exp(-log_snr / 2) / shift)."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        return torch.atan(torch.exp(-0.5 * log_snr) / self.shift) * (2 / math.pi)


class VarianceExploding(Schedule):
    r"""alpha = 1, sigma = sigma_max t (Karras et al., "EDM", arXiv 2206.00364, table 1).

    In continuous time, levels down to sigma_min are trained.
    """

    def __init__(
        self, steps: int | None = None, sigma_min: float = 0.002, sigma_max: float = 80.0
    ) -> None:
        super().__init__(steps)
        if not 0 < sigma_min < sigma_max:
            rule = f"must be above 0 and below sigma_max={sigma_max}; the paper: 0.002 and 80"
            raise ArgumentError("sigma_min", sigma_min, rule)
        self.sigma_max = sigma_max
        if steps is None:
            self.t_min = sigma_min / sigma_max

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1, sigma_max t)."""
        return torch.ones_like(t), self.sigma_max * t

    def time_of(self, log_snr: Tensor) -> Tensor:
        """exp(-log_snr / 2) / sigma_max, at most 1."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        return (torch.exp(-0.5 * log_snr) / self.sigma_max).clamp(max=1.0)

    def conditioning(self, level: Level) -> Tensor:
        """c_noise = ln(sigma) / 4."""
        return 0.25 * level.sigma.log()


class RectifiedFlow(Schedule):
    """alpha = 1 - u, sigma = u, a straight line from data to noise (Liu et al., 2209.03003).

    u = shift t / (1 + (shift - 1) t) spends more time at high noise for shift > 1 (Esser et al.,
    "Scaling Rectified Flow Transformers", arXiv 2403.03206, eq. 23); shift = 1 is u = t.
    """

    @checked
    def __init__(self, steps: int | None = None, shift: Positive = 1.0) -> None:
        super().__init__(steps)
        self.shift = shift

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - u, u)."""
        alpha = (1 - t) / (1 + (self.shift - 1) * t)
        return alpha, 1 - alpha

    def time_of(self, log_snr: Tensor) -> Tensor:
        """u = 1 / (1 + exp(log_snr / 2)), then the shift undone."""
        u = torch.sigmoid(-0.5 * torch.as_tensor(log_snr, dtype=torch.float64))
        return u / (self.shift - (self.shift - 1) * u)
