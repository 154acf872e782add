"""GaussianDiffusion: a denoiser, a schedule and a parameterization -> x0-hat."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule

LARGEST_TERMINAL_ALPHA = 0.05
"""Amplitude of the signal at t = 1 above which a standard normal start is called wrong."""


class Denoised(NamedTuple):
    """What one call of the model gives.

    Attributes:
        x0: Estimate of the clean image, (B, *).
        raw: The network's own output F, (B, *).
        variance_fraction: Learned fraction between the smallest and the largest log variance,
            (B, *), where a network predicts one.
    """

    x0: Tensor
    raw: Tensor | None = None
    variance_fraction: Tensor | None = None


class GaussianDiffusion(nn.Module):
    """Wraps a denoiser network into a model of x0 given x_t.

    The network contract: (x (B, *), c_noise (B,), label (B,) long or None, **extra) -> (B, *). It
    knows nothing of diffusion; this class scales its input, tells it the noise level and turns
    its output F into x0-hat = (b x_t - sigma F) / D (see `parameterizations`). A network with
    twice the channels of its input says, in the second half, v in [-1, 1]: the log variance of a
    step of DDPM lies the fraction (v + 1) / 2 of the way from the smallest to the largest (Nichol &
    Dhariwal, arXiv 2102.09672, eq. 15). One with `self_conditioning` takes its last x0-hat as
    `estimate` (Chen et al., "Analog Bits", arXiv 2208.04202, section 3.2).

    Args:
        denoiser: The network.
        schedule: t -> (alpha, sigma).
        parameterization: What the network's output means; checked against the schedule.
        data_mean: Subtracted around the network, so that it sees centred data.
        data_std: Standard deviation of the data, for input scaling and the matched prior; > 0.
        input_scaling: Divide the input by sqrt(alpha^2 data_std^2 + sigma^2), which is c_in of
            Karras et al. (arXiv 2206.00364, table 1) on every schedule.
        matched_prior: Start sampling from N(alpha data_mean, alpha^2 data_std^2 + sigma^2) in
            place of the papers' N(0, 1); matters where a schedule does not end in pure noise.

    Raises:
        ValueError: data_std <= 0, or a parameterization that cannot recover x0 on this schedule.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        data_mean: float = 0.0,
        data_std: float = 1.0,
        input_scaling: bool = False,
        matched_prior: bool = False,
    ) -> None:
        super().__init__()
        if not data_std > 0:
            raise ValueError(f"data_std={data_std} must be positive")
        parameterization.check(schedule)
        self.denoiser = denoiser
        self.schedule = schedule
        self.parameterization = parameterization
        self.data_mean = data_mean
        self.data_std = data_std
        self.input_scaling = input_scaling
        self.matched_prior = matched_prior

    def forward(
        self, x_t: Tensor, level: Level, label: Tensor | None = None, **cond: Tensor
    ) -> Denoised:
        """x0-hat of x_t (B, *) at a level of shape () or (B,); sigma > 0.

        Args:
            x_t: Noisy images.
            level: One level for all, or one an image.
            label: Class numbers (B,); `num_classes` of the denoiser is the null class, and None
                is the null class for all.
            cond: Further conditioning, handed to the network.
        """
        x = self._centred(x_t, level.alpha)
        c_noise = self.schedule.conditioning(level).to(x.device, torch.float32)
        scaled = combine((self._c_in(level), x)) if self.input_scaling else x
        raw = self.denoiser(scaled, c_noise.expand(len(x)), label, **cond).to(x.dtype)
        fraction = None
        if raw.shape[1] == 2 * x.shape[1]:
            raw, v = raw.chunk(2, dim=1)
            fraction = (v + 1) / 2
        _, b = self.parameterization.weights(level)
        d = self.parameterization.determinant(level)
        x0 = combine((b / d, x), (-level.sigma / d, raw))
        return Denoised(x0 + self.data_mean if self.data_mean else x0, raw, fraction)

    @property
    def self_conditioning(self) -> bool:
        """Whether the network takes its last x0-hat as `estimate`."""
        return bool(getattr(self.denoiser, "self_conditioning", False))

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """F = a (x0 - data_mean) + b eps: what `raw` is trained towards."""
        a, b = self.parameterization.weights(level)
        return combine((a, x0 - self.data_mean if self.data_mean else x0), (b, eps))

    def prior(self, level: Level, eps: Tensor) -> Tensor:
        """What sampling starts from at `level`, made from standard normal eps (B, *)."""
        if not self.matched_prior:
            return combine((self.schedule.prior_std(level), eps))
        std = 1.0 / self._c_in(level)
        return combine((std, eps)) + float(level.alpha) * self.data_mean

    def terminal_mismatch(self) -> str | None:
        """What is wrong with starting from the prior where the schedule ends, or None.

        The papers' N(0, 1) is right where alpha(1) = 0; a variance preserving schedule that keeps
        more than `LARGEST_TERMINAL_ALPHA` of the signal starts sampling from the wrong noise.
        """
        level = self.schedule(self.schedule.t_max)
        preserving = bool(self.schedule.preserving(level))
        if self.matched_prior or not preserving or level.alpha <= LARGEST_TERMINAL_ALPHA:
            return None
        return (
            f"the schedule ends with {float(level.alpha):.3g} of the signal's amplitude left "
            f"(terminal SNR {float(level.alpha / level.sigma) ** 2:.2g}, "
            f"{float(level.log_snr) * 4.342944819:.0f} dB), but sampling starts from pure noise: "
            "more or scaled steps, schedule=zero_terminal or model.matched_prior=true cure it"
        )

    def _centred(self, x_t: Tensor, alpha: Tensor) -> Tensor:
        if not self.data_mean:
            return x_t
        return combine((1.0, x_t), (-alpha * self.data_mean, torch.ones_like(x_t)))

    def _c_in(self, level: Level) -> Tensor:
        return 1.0 / torch.sqrt((level.alpha * self.data_std) ** 2 + level.sigma**2)
