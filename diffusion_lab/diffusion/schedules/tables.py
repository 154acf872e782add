r"""Discrete schedules: T betas, or what follows from them.

log alpha_bar = cumsum(log(1 - beta)) in float64 and node k, at t = k/T, has
alpha = sqrt(alpha_bar_k), sigma = sqrt(1 - alpha_bar_k). Between nodes the angle
atan2(sigma, alpha) is linear in t, so every schedule can be asked at every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from diffusion_lab.diffusion.schedules.schedule import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, NonNegative, Positive, checked


class Table(Schedule):
    """A discrete schedule by its amplitudes at t = 0, 1/T, ..., 1, float64, shape (T + 1,).

    alpha falls from 1, sigma rises from 0, and alpha^2 + sigma^2 = 1.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor) -> None:
        super().__init__(len(alpha) - 1)
        self._alpha, self._sigma = alpha, sigma
        self._angle = torch.atan2(sigma, alpha)

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


class BetaTable(Table):
    """A discrete schedule by its betas, beta_1..beta_T in (0, 1); `steps` is T or None."""

    def __init__(self, betas: Tensor | Sequence[float], steps: int | None = None) -> None:
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or not len(betas) or not bool(((betas > 0) & (betas < 1)).all()):
            got = f"{float(betas.min()):.3g} to {float(betas.max()):.3g}" if len(betas) else "none"
            raise ArgumentError(
                "betas", got, "must be a list of numbers between 0 and 1, both excluded"
            )
        if steps not in (None, len(betas)):
            rule = f"must be the number of betas, {len(betas)}, or null"
            raise ArgumentError("steps", steps, rule)
        log_abar = torch.cat((torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)))
        super().__init__(torch.exp(0.5 * log_abar), torch.sqrt(-torch.expm1(log_abar)))


class CosineBetas(BetaTable):
    r"""alpha_bar(t) = f(t) / f(0), f(t) = cos^2((t + offset) / (1 + offset) pi/2).

    The cosine schedule of Nichol & Dhariwal (arXiv 2102.09672, eq. 17; their s is `offset`). Betas
    are 1 - alpha_bar_k / alpha_bar_{k-1}, at most `max_beta`.
    """

    @checked
    def __init__(
        self,
        steps: Count,
        offset: NonNegative = 0.008,
        max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
    ) -> None:
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        f = torch.cos((t + offset) / (1 + offset) * (math.pi / 2)) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=max_beta))


class LinearBetas(BetaTable):
    r"""Betas linear in k (Ho et al., arXiv 2006.11239, section 4).

    beta_k = scale (beta_start + (beta_end - beta_start) (k - 1) / (T - 1)), where scale is 1, or
    1000/T with `scaled`, which keeps the terminal noise the same for every T (Nichol & Dhariwal).
    Unscaled, T = 300 ends at alpha = 0.22: far from pure noise.
    """

    power = 1.0
    """Of the ramp from beta_start to beta_end, see `_ramp`."""

    def __init__(
        self,
        steps: Count,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        scaled: bool = False,
    ) -> None:
        super().__init__(_ramp(steps, beta_start, beta_end, scaled, self.power))


class QuadraticBetas(LinearBetas):
    r"""Betas quadratic in k: their square roots are linear (Rombach et al., arXiv 2112.10752).

    beta_k = scale (b0 + (b1 - b0) (k - 1) / (T - 1))^2, b0 and b1 the roots of beta_start and
    beta_end; diffusers calls it "scaled_linear". It keeps more signal than `LinearBetas` of the
    same ends, since the betas in between are smaller.
    """

    power = 2.0


@checked
def _ramp(steps: Count, beta_start: float, beta_end: float, scaled: bool, power: float) -> Tensor:
    """T betas whose `power`-th root is linear in k, times 1000 / T if `scaled`."""
    if not 0 < beta_start <= beta_end < 1:
        raise ArgumentError(
            "beta_start",
            beta_start,
            f"must be above 0 and at most beta_end={beta_end}, and that below 1; Ho et al. take "
            "1e-4 and 0.02",
        )
    scale = 1000.0 / steps if scaled else 1.0
    if beta_end * scale >= 1:
        raise ArgumentError(
            "scaled",
            scaled,
            f"with steps={steps} makes the last beta {beta_end * scale:.3g}, not below 1: take "
            f"steps of at least {math.floor(1000 * beta_end) + 1} or scaled=false",
        )
    ends = beta_start ** (1 / power), beta_end ** (1 / power)
    return torch.linspace(*ends, steps, dtype=torch.float64) ** power * scale


class SigmoidBetas(BetaTable):
    r"""alpha_bar falls as a sigmoid (Jabri et al., "RIN", arXiv 2212.11972, algorithm 2).

    alpha_bar(t) = (S(end) - S(start + (end - start) t)) / (S(end) - S(start)), S the logistic
    function of x / temperature; betas are 1 - alpha_bar_k / alpha_bar_{k-1}, at most `max_beta`.
    The paper takes -3, 3 and 1. (diffusers' "sigmoid" is another one: its betas are sigmoidal.)
    """

    @checked
    def __init__(
        self,
        steps: Count,
        start: float = -3.0,
        end: float = 3.0,
        temperature: Positive = 1.0,
        max_beta: Annotated[float, Gt(0), Lt(1)] = 0.999,
    ) -> None:
        if not start < end:
            raise ArgumentError("start", start, f"must be below end={end}; the paper: -3 and 3")
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        # 1 - S(x) = S(-x): differences near t = 1 are taken between small numbers
        falling = torch.sigmoid(-(start + (end - start) * t) / temperature)
        abar = (falling - falling[-1]) / (falling[0] - falling[-1])
        betas = (1 - abar[1:] / abar[:-1]).clamp(max=max_beta)
        if not bool((betas > 0).all()):
            raise ArgumentError(
                "temperature",
                temperature,
                f"is so low for start={start} and end={end} that betas vanish; take start and end "
                "closer to 0 or a higher temperature",
            )
        super().__init__(betas)


class ZeroTerminalSNR(Table):
    r"""A table of betas that is made to end in noise (Lin et al., arXiv 2305.08891, algorithm 1).

    sqrt(alpha_bar) is shifted and scaled: its first value stays, its last becomes exactly 0, where
    eps says nothing of the image (predict v, x0 or velocity). `base` maps T to the table that is
    shifted, e.g. `partial(LinearBetas, beta_end=0.02)`.
    """

    @checked
    def __init__(self, steps: Annotated[int, Ge(2)], base: Callable[..., Table]) -> None:
        alpha = base(steps=steps)._alpha
        first, last = alpha[1], alpha[-1]
        shifted = (alpha[1:] - last) * (first / (first - last))
        alpha = torch.cat((alpha[:1], shifted))
        super().__init__(alpha, torch.sqrt((1 - alpha) * (1 + alpha)))
