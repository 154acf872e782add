r"""Gaussian algebra of noise levels: marginal, transition and posterior.

A noise level is (t, alpha, sigma) and q(x_t | x0) = N(alpha_t x0, sigma_t^2 I). For s < t, with

    r = alpha_t / alpha_s,    v = sigma_t^2 - r^2 sigma_s^2,

the forward process between the two levels and its reversal given x0 are

    q(x_t | x_s)     = N(r x_s, v I)
    q(x_s | x_t, x0) = N((r sigma_s^2 / sigma_t^2) x_t + (alpha_s v / sigma_t^2) x0,
                         (v sigma_s^2 / sigma_t^2) I).

On a discrete beta table with s = t - 1/T, v *is* beta_t and the posterior *is* equation 7 of
Ho et al., "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239). Nothing here supposes
neighbouring steps, so respaced chains (Nichol & Dhariwal, arXiv 2102.09672) need nothing more.
Coefficients are float64 on the CPU, of shape () or (B,): in float32 the difference in v loses four
digits. Only `along` casts and broadcasts them to images (B, *).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Level(NamedTuple):
    """One noise level, or a batch of them: time in [0, 1], amplitudes of signal and noise."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """ln(alpha^2 / sigma^2); +inf at sigma = 0, -inf at alpha = 0."""
        return 2.0 * (self.alpha.log() - self.sigma.log())


def levels(level: Level) -> list[Level]:
    """A batch of levels, shape (N,), as N levels of shape ()."""
    return [Level(*row) for row in zip(*(torch.unbind(part) for part in level), strict=True)]


def along(c: Tensor | float, x: Tensor) -> Tensor | float:
    """A coefficient ready to multiply x: a number, or a tensor of x's dtype and device."""
    if isinstance(c, Tensor) and c.ndim == 1:
        return c.to(device=x.device, dtype=x.dtype).view(-1, *([1] * (x.ndim - 1)))
    return float(c)


def combine(*terms: tuple[Tensor | float, Tensor]) -> Tensor:
    """Sum of c x over pairs (c, x), at least one; all x share shape, dtype and device."""
    if not terms:
        raise ValueError("combine needs at least one term (c, x)")
    (c, x), *others = terms
    total = along(c, x) * x
    for c, x in others:
        total = total + along(c, x) * x
    return total


def marginal(x0: Tensor, eps: Tensor, level: Level) -> Tensor:
    """x_t = alpha x0 + sigma eps, a draw of q(x_t | x0) (Ho et al., eq. 4)."""
    return combine((level.alpha, x0), (level.sigma, eps))


def eps_from(x_t: Tensor, x0: Tensor, level: Level) -> Tensor:
    """eps = (x_t - alpha x0) / sigma, the noise in x_t if its clean image is x0; sigma > 0."""
    return combine((1.0 / level.sigma, x_t), (-level.alpha / level.sigma, x0))


def transition(s: Level, t: Level) -> tuple[Tensor, Tensor]:
    """(r, v) of q(x_t | x_s) = N(r x_s, v I) for s <= t; alpha_s > 0."""
    r = t.alpha / s.alpha
    return r, (t.sigma**2 - r**2 * s.sigma**2).clamp_min(0.0)


class Posterior(NamedTuple):
    """q(x_s | x_t, x0) = N(c_t x_t + c_0 x0, variance I); its variance is DDPM's "fixed small"."""

    c_t: Tensor
    c_0: Tensor
    variance: Tensor

    def mean(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """c_t x_t + c_0 x0."""
        return combine((self.c_t, x_t), (self.c_0, x0))


def posterior(s: Level, t: Level) -> Posterior:
    """q(x_s | x_t, x0) for s < t; sigma_t > 0."""
    r, v = transition(s, t)
    inverse = 1.0 / t.sigma**2
    return Posterior(r * s.sigma**2 * inverse, s.alpha * v * inverse, v * s.sigma**2 * inverse)
