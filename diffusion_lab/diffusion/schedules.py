r"""Noise schedules: t in [0, 1] -> (alpha, sigma), with t = 0 data and t = 1 noise.

A schedule fixes how fast the signal-to-noise ratio falls, and nothing else: not what the network
predicts, not which times are trained, not how sampling steps. `steps` makes it discrete: an
integer T restricts training to the nodes t = k/T, k = 1..T, and null leaves time continuous.

Discrete tables state betas; log alpha_bar = cumsum(log(1 - beta)) in float64 and node k, at
t = k/T, has alpha = sqrt(alpha_bar_k), sigma = sqrt(1 - alpha_bar_k). Between nodes the angle
atan2(sigma, alpha) is linear in t, so every schedule can be asked at every time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level

CONTINUOUS_T_MIN = 1e-3
"""Smallest time that a continuous schedule trains on."""


def _checked_steps(steps: int | None) -> int | None:
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(
            f"steps={steps!r} must be an integer of at least 1 (or null for continuous time)"
        )
    return steps


class Schedule(ABC):
    """An immutable map from time to noise level.

    Attributes:
        steps: Number T of discrete steps, or None where time is continuous.
        t_min: Smallest trained time, > 0.
        t_max: Largest trained time, where sampling starts.
    """

    def __init__(self, steps: int | None = None) -> None:
        self.steps = _checked_steps(steps)
        self.t_min = CONTINUOUS_T_MIN if self.steps is None else 1.0 / self.steps
        self.t_max = 1.0

    @abstractmethod
    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Amplitudes (alpha, sigma) at times t (float64, any shape)."""

    @abstractmethod
    def time_of(self, log_snr: Tensor) -> Tensor:
        """Inverse of `log_snr` in t; exact at both ends."""

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
        """What the network is told: k in 1..T of a discrete schedule, else 1000 t."""
        return level.t * (1000.0 if self.steps is None else self.steps)

    def prior_std(self, level: Level) -> Tensor:
        """Standard deviation that sampling starts with: 1 if variance preserving, else sigma."""
        preserving = (level.alpha**2 + level.sigma**2 - 1.0).abs() < 1e-9
        return torch.where(preserving, torch.ones_like(level.sigma), level.sigma)


class BetaTable(Schedule):
    """A discrete schedule stated by its betas.

    Args:
        betas: beta_1..beta_T, each in (0, 1).
    """

    def __init__(self, betas: Tensor) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError(
                "betas must be a list of numbers between 0 and 1, both excluded; got a table from "
                f"{float(betas.min()):.3g} to {float(betas.max()):.3g}"
            )
        super().__init__(len(betas))
        log_abar = torch.cat((torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)))
        self._alpha = torch.exp(0.5 * log_abar)
        self._sigma = torch.sqrt(-torch.expm1(log_abar))
        self._angle = torch.atan2(self._sigma, self._alpha)

    @property
    def alpha_bar(self) -> Tensor:
        """alpha_bar_1..alpha_bar_T, float64, shape (T,)."""
        return self._alpha[1:] ** 2

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Table values at the nodes k/T; between them the angle is linear."""
        assert self.steps is not None
        position = (t * self.steps).clamp(0.0, float(self.steps))
        node = position.round()
        k = position.floor().clamp(max=self.steps - 1).long()
        angle = torch.lerp(self._angle[k], self._angle[k + 1], position - k)
        at_node = (position - node).abs() < 1e-9
        alpha = torch.where(at_node, self._alpha[node.long()], angle.cos())
        sigma = torch.where(at_node, self._sigma[node.long()], angle.sin())
        return alpha, sigma

    def time_of(self, log_snr: Tensor) -> Tensor:
        """Inverse on the piecewise linear angle."""
        assert self.steps is not None
        angle = torch.atan(torch.exp(-0.5 * torch.as_tensor(log_snr, dtype=torch.float64)))
        angle = angle.clamp(0.0, float(self._angle[-1]))
        k = (torch.searchsorted(self._angle, angle) - 1).clamp(0, self.steps - 1)
        fraction = (angle - self._angle[k]) / (self._angle[k + 1] - self._angle[k])
        t = (k + fraction) / self.steps
        return torch.where(angle >= self._angle[-1], torch.ones_like(t), t)


class LinearBetas(BetaTable):
    r"""Betas linear in k (Ho et al., arXiv 2006.11239, section 4).

    beta_k = scale (beta_start + (beta_end - beta_start) (k - 1) / (T - 1)), where scale is 1, or
    1000/T with `scaled`, which keeps the terminal noise the same for every T (Nichol & Dhariwal).
    Unscaled, T = 300 ends at alpha = 0.22: far from pure noise.

    Args:
        steps: T, at least 1.
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1).
        scaled: Multiply all betas by 1000 / T.
    """

    def __init__(
        self,
        steps: int,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        scaled: bool = False,
    ) -> None:
        super().__init__(_ramp(steps, beta_start, beta_end, scaled, power=1.0))


class QuadraticBetas(BetaTable):
    r"""Betas quadratic in k: their square roots are linear (Rombach et al., arXiv 2112.10752).

    beta_k = scale (b0 + (b1 - b0) (k - 1) / (T - 1))^2, b0 and b1 the roots of beta_start and
    beta_end; diffusers calls it "scaled_linear". It keeps more signal than `LinearBetas` of the
    same ends, since the betas in between are smaller.

    Args:
        steps: T, at least 1.
        beta_start: First beta, in (0, 1).
        beta_end: Last beta, in (0, 1).
        scaled: Multiply all betas by 1000 / T.
    """

    def __init__(
        self,
        steps: int,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        scaled: bool = False,
    ) -> None:
        super().__init__(_ramp(steps, beta_start, beta_end, scaled, power=2.0))


def _ramp(steps: int, beta_start: float, beta_end: float, scaled: bool, power: float) -> Tensor:
    """T betas whose `power`-th root is linear in k, times 1000 / T if `scaled`."""
    _require_steps(steps, "betas")
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(
            f"beta_start={beta_start}, beta_end={beta_end}: 0 < beta_start <= beta_end < 1 "
            "is needed; Ho et al. take 1e-4 and 0.02"
        )
    scale = 1000.0 / steps if scaled else 1.0
    if beta_end * scale >= 1:
        raise ValueError(
            f"scaled=true with steps={steps} makes the last beta {beta_end * scale:.3g}, not "
            f"below 1: take steps of at least {math.floor(1000 * beta_end) + 1} or scaled=false"
        )
    ends = beta_start ** (1 / power), beta_end ** (1 / power)
    return torch.linspace(*ends, steps, dtype=torch.float64) ** power * scale


class CosineBetas(BetaTable):
    r"""The cosine schedule of Nichol & Dhariwal (arXiv 2102.09672, eq. 17).

    alpha_bar(t) = f(t)/f(0) with f(t) = cos^2((t + offset)/(1 + offset) pi/2); betas are
    1 - alpha_bar_k / alpha_bar_{k-1}, clipped at max_beta, and alpha_bar is rebuilt from the
    clipped betas.

    Args:
        steps: T, at least 1.
        offset: The paper's s = 0.008, >= 0.
        max_beta: The paper's 0.999, in (0, 1).
    """

    def __init__(self, steps: int, offset: float = 0.008, max_beta: float = 0.999) -> None:
        _require_steps(steps, "cosine betas")
        if not offset >= 0:
            raise ValueError(f"offset={offset} must not be negative; the paper takes 0.008")
        if not 0 < max_beta < 1:
            raise ValueError(f"max_beta={max_beta} must be between 0 and 1; the paper takes 0.999")
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        f = torch.cos((t + offset) / (1 + offset) * (math.pi / 2)) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


class ContinuousCosine(Schedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance preserving, alpha(1) = 0 exactly.

    The unclipped limit of the cosine schedule without offset (Hoogeboom et al., "Simple
    Diffusion", arXiv 2301.11093, eq. 5, without shift).

    Args:
        steps: T nodes that times are snapped to, or None for continuous time.
    """

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Exact at both ends: cos is taken as the sine of the complement."""
        return torch.sin((1 - t) * (math.pi / 2)), torch.sin(t * (math.pi / 2))

    def time_of(self, log_snr: Tensor) -> Tensor:
        """T = (2/pi) arctan(exp(-log_snr / 2))."""
        log_snr = torch.as_tensor(log_snr, dtype=torch.float64)
        return torch.atan(torch.exp(-0.5 * log_snr)) * (2 / math.pi)


class RectifiedFlow(Schedule):
    """alpha = 1 - u, sigma = u, a straight line from data to noise (Liu et al., 2209.03003).

    u = shift t / (1 + (shift - 1) t) spends more time at high noise for shift > 1 (Esser et al.,
    "Scaling Rectified Flow Transformers", arXiv 2403.03206, eq. 23); shift = 1 is u = t.

    Args:
        steps: T nodes that times are snapped to, or None for continuous time.
        shift: > 0.
    """

    def __init__(self, steps: int | None = None, shift: float = 1.0) -> None:
        super().__init__(steps)
        if not shift > 0:
            raise ValueError(f"shift={shift} must be positive; 1 leaves time as it is")
        self.shift = shift

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - u, u)."""
        alpha = (1 - t) / (1 + (self.shift - 1) * t)
        return alpha, 1 - alpha

    def time_of(self, log_snr: Tensor) -> Tensor:
        """U = 1 / (1 + exp(log_snr / 2)), then the shift undone."""
        u = torch.sigmoid(-0.5 * torch.as_tensor(log_snr, dtype=torch.float64))
        return u / (self.shift - (self.shift - 1) * u)


def _require_steps(steps: int | None, what: str) -> None:
    if steps is None:
        raise ValueError(f"steps=null: {what} need an integer number of steps, e.g. 1000")
    _checked_steps(steps)
