r"""Samplers of one evaluation a step: DDPM, DDIM and its inversion.

Both replace x0 by x0-hat in a Gaussian q(x_s | x_t, x0) of `diffusion.gaussian`:

    DDPM   x_s = posterior mean + noise_scale sqrt(variance) z
    DDIM   x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z,   c = eta sqrt(posterior variance)

DDIM(eta = 1) is DDPM with the small variance. DDIM(eta = 0) is Euler's method on the probability
flow ODE, in sigma/alpha (Karras et al.) and in the straight frame of rectified flow alike: each
is exact for a constant x0-hat, so x_s = alpha_s x0 + sigma_s eps in both. Euler and
Euler-ancestral are therefore names of DDIM(0) and DDIM(1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import (
    Level,
    combine,
    eps_from,
    marginal,
    posterior,
    transition,
)
from diffusion_lab.diffusion.model import Denoised, DenoiseFn
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Share, checked
from diffusion_lab.sampling.sampler import Here, Sampler, Step
from diffusion_lab.sampling.spacing import TimestepSpacing


class DDIM(Sampler):
    """Song et al., "Denoising Diffusion Implicit Models" (arXiv 2010.02502, eq. 12 and 16)."""

    @checked
    def __init__(
        self, steps: int | None = None, grid: TimestepSpacing | None = None, eta: Share = 0.0
    ) -> None:
        super().__init__(steps, grid)
        self.eta = eta

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Keep x0-hat and eps-hat, exchange the share c of the noise for fresh noise."""
        x, t = here.x, here.t
        x0 = here.ask(denoise, s).x0
        eps = eps_from(x, x0, t)
        if self.eta == 0:
            return Step(s, marginal(x0, eps, s), t, x, x0)
        c = self.eta * posterior(s, t).variance.sqrt()
        remaining = (s.sigma**2 - c**2).clamp_min(0.0).sqrt()
        x_s = combine((s.alpha, x0), (remaining, eps), (c, here.noise.normal(x)))
        return Step(s, x_s, t, x, x0)


class DDPM(Sampler):
    """Ancestral sampling (Ho et al., arXiv 2006.11239, algorithm 2), on any subset of steps.

    The variance lies between the posterior's ("fixed small", beta-tilde) and the transition's
    ("fixed large", beta): log variance = f log large + (1 - f) log small (Nichol & Dhariwal,
    arXiv 2102.09672, eq. 15), f the `variance_fraction`, or the learned one where that is None.

    `noise_scale` is for the experiment "what is the added noise for?". At 0 the posterior mean
    alone is iterated. That is no sampler: no step draws the variance anew, so samples differ by
    what survives of their start alone, on a Gaussian of std d by the factor alpha_T d / P_T (with
    P = alpha^2 d^2 + sigma^2), next to nothing where alpha_T is. DDIM needs no noise, since it
    puts the noise it predicts back at the next level's strength, and so keeps the variance.
    """

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        variance_fraction: Share | None = 0.0,
        noise_scale: Share = 1.0,
    ) -> None:
        super().__init__(steps, grid)
        self.variance_fraction, self.noise_scale = variance_fraction, noise_scale

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Posterior mean at x0-hat, then noise."""
        x, t = here.x, here.t
        denoised = here.ask(denoise, s)
        q = posterior(s, t)
        small, large = q.variance.log(), transition(s, t)[1].log()
        if self.variance_fraction is None:
            noise = _learned_std(denoised, small, large) * here.noise.normal(x)
        else:
            f = self.variance_fraction
            std = torch.exp(0.5 * (f * large + (1 - f) * small))
            noise = combine((std, here.noise.normal(x)))
        x_s = combine((1.0, q.mean(x, denoised.x0)), (self.noise_scale, noise))
        return Step(s, x_s, t, x, denoised.x0)


def _learned_std(denoised: Denoised, small: Tensor, large: Tensor) -> Tensor:
    """Standard deviation (B, *) at the learned fraction between two log variances, shape ()."""
    if denoised.variance_fraction is None:
        raise ArgumentError(
            "variance_fraction",
            None,
            "is the learned one, but this network learned none: build it with "
            "learned_variance=true, or take 0 or 1",
        )
    return torch.exp(0.5 * (float(small) + float(large - small) * denoised.variance_fraction))


class DDIMInversion(Sampler):
    """The ODE upwards, from an image to the noise that DDIM would make it from.

    Song et al. (arXiv 2010.02502, section 4.3): DDIM's step between the same levels, taken from
    the cleaner to the noisier. The image is taken for the state at the cleanest level visited.
    """

    inverts = True

    def times(self, schedule: Schedule, start: float | None = None) -> Tensor:
        """Those of a sampler without the 0, rising."""
        return super().times(schedule, start)[:-1].flip(0)

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Keep x0-hat and eps-hat, go up to s."""
        x, t = here.x, here.t
        x0 = here.ask(denoise, s).x0
        return Step(s, marginal(x0, eps_from(x, x0, t), s), t, x, x0)
