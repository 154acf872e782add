"""GaussianDiffusion: a denoiser, a schedule and a parameterization -> x0-hat."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.compatibility import check_recoverable
from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.network_call import network_output
from diffusion_lab.diffusion.parameterizations import Parameterization
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.ranges import Positive, checked


class Denoised(NamedTuple):
    """x0-hat, the network's output F, and a learned variance where there is one, each (B, *)."""

    x0: Tensor
    raw: Tensor | None = None
    variance_fraction: Tensor | None = None


DenoiseFn = Callable[[Query], Denoised]
"""What a sampler calls: a model with its guidance and the constraint on x0-hat inside."""


class GaussianDiffusion(nn.Module):
    """A model of x0 given x_t: x0-hat = (b x_t - sigma F) / D, F the output of a network.

    The network knows nothing of diffusion (see `network_call`). With `data_mean` it sees centred
    data; with `input_scaling` its input is divided by sqrt(alpha^2 data_std^2 + sigma^2), 1 / c_in
    of Karras et al. (arXiv 2206.00364, table 1) on every schedule. Sampling starts from the papers'
    N(0, 1), or with `matched_prior` from N(alpha data_mean, alpha^2 data_std^2 + sigma^2), which
    matters where alpha(1) > 0.

    A network with twice the channels of its input gives v in [-1, 1] in the second half: the log
    variance of a DDPM step lies the fraction (v + 1) / 2 of the way from the smallest to the
    largest (Nichol & Dhariwal, arXiv 2102.09672, eq. 15).

    Attributes:
        num_classes: Classes of the network without the null class; None where it has none.
        denoises: False for a classifier of noisy images, whose attribute of that name says so.
    """

    @checked
    def __init__(
        self,
        denoiser: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        data_mean: float = 0.0,
        data_std: Positive = 1.0,
        input_scaling: bool = False,
        matched_prior: bool = False,
    ) -> None:
        super().__init__()
        check_recoverable(parameterization, schedule)
        self.denoiser, self.schedule, self.parameterization = denoiser, schedule, parameterization
        self.data_mean, self.data_std = data_mean, data_std
        self.input_scaling, self.matched_prior = input_scaling, matched_prior
        self.num_classes: int | None = getattr(denoiser, "num_classes", None)
        self.self_conditioning = bool(getattr(denoiser, "self_conditioning", False))
        self.denoises = bool(getattr(denoiser, "denoises", True))

    def forward(self, query: Query) -> Denoised:
        """x0-hat of `query.x` (B, *) at the level `query.at`, where sigma > 0."""
        x, level, fraction = query.x, query.at, None
        if self.data_mean:
            x = combine((1.0, x), (-level.alpha * self.data_mean, torch.ones_like(x)))
        scaled = combine((self._c_in(level), x)) if self.input_scaling else x
        raw = network_output(self.denoiser, self.schedule, query, scaled)
        if raw.shape[1] == 2 * x.shape[1]:
            raw, v = raw.chunk(2, dim=1)
            fraction = (v + 1) / 2
        _, b = self.parameterization.weights(level)
        d = self.parameterization.determinant(level)
        x0 = combine((b / d, x), (-level.sigma / d, raw))
        return Denoised(x0 + self.data_mean if self.data_mean else x0, raw, fraction)

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """F = a (x0 - data_mean) + b eps: what `raw` is trained towards."""
        a, b = self.parameterization.weights(level)
        return combine((a, x0 - self.data_mean if self.data_mean else x0), (b, eps))

    def prior(self, level: Level, eps: Tensor) -> Tensor:
        """What sampling starts from at `level`, made from standard normal eps (B, *)."""
        if not self.matched_prior:
            return combine((self.schedule.prior_std(level), eps))
        return combine((1.0 / self._c_in(level), eps)) + float(level.alpha) * self.data_mean

    def _c_in(self, level: Level) -> Tensor:
        return 1.0 / torch.sqrt((level.alpha * self.data_std) ** 2 + level.sigma**2)
