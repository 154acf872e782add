r"""The variational bound, term by term (Ho et al., arXiv 2006.11239, eq. 5).

    -log p(x0) <= KL(q(x_T | x0) | p(x_T)) + sum over t > s of KL(q(x_s | x_t, x0) | p(x_s | x_t))
                  - E log p(x0 | x_{t_1})

with p(x_s | x_t) = N(mean of `posterior` at x0-hat, variance), log variance between that of the
posterior ("small") and that of the transition ("large"). Everything is per dimension, in nats;
divide by ln 2 for bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, along, combine, posterior, transition
from diffusion_lab.diffusion.model import Denoised

BIN = 2.0 / 255.0
"""Width of a grey value of 8 bits in [-1, 1]."""


def log_variance(s: Level, t: Level, fraction: float | Tensor, like: Tensor) -> Tensor | float:
    """F log large + (1 - f) log small, the variance of a reverse step from t to s.

    Args:
        s: Level the step ends at, shape () or (B,).
        t: Level it begins at; above s.
        fraction: f in [0, 1], a number or (B, *). At sigma_s = 0 "small" would be 0, and the
            transition's variance stands for it (as in Ho et al.'s code).
        like: Images (B, *).
    """
    large = transition(s, t)[1].log()
    small = torch.where(s.sigma > 0, posterior(s, t)[2].log(), large)
    return along(small, like) + fraction * along(large - small, like)


def bound_term(
    x0: Tensor, x_t: Tensor, s: Level, t: Level, denoised: Denoised, fraction: float | None = None
) -> Tensor:
    """One term of the bound, nats per dimension, (B,).

    Args:
        x0: Clean images (B, *).
        x_t: Their noised states at t.
        s: Level the step ends at, shape () or (B,); at sigma_s = 0 the term is -log p(x0 | x_t),
            the probability of x0's grey value of 8 bits.
        t: Level it begins at.
        denoised: The model's answer at (x_t, t).
        fraction: Fixed fraction of the log variance (0 small, 1 large), or None for the learned.

    Raises:
        ValueError: no fraction is given, and the network learned none.
    """
    f = denoised.variance_fraction if fraction is None else fraction
    if f is None:
        raise ValueError(
            "this network learned no variance: build it with denoiser.learned_variance=true"
        )
    log_var = log_variance(s, t, f, x0)
    mean, true_mean, true_log_var = _reverse_means(x0, x_t, s, t, denoised.x0)
    log_var = torch.as_tensor(log_var, dtype=x0.dtype, device=x0.device).expand_as(x0)
    kl = normal_kl(true_mean, true_log_var, mean, log_var)
    if bool((s.sigma > 0).all()):
        return kl.flatten(1).mean(1)
    first = along((s.sigma == 0).double(), x0) * torch.ones_like(x0)
    likelihood = -grey_log_probability(x0, mean, log_var)
    return torch.where(first > 0, likelihood, kl).flatten(1).mean(1)


def _reverse_means(
    x0: Tensor, x_t: Tensor, s: Level, t: Level, estimate: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Means of q(x_s | x_t, .) at the estimate and at x0, and its log variance (finite)."""
    c_t, c_0, variance = posterior(s, t)
    log_var = torch.where(variance > 0, variance, torch.ones_like(variance)).log()
    log_var_of = along(log_var, x0) * torch.ones_like(x0)
    return combine((c_t, x_t), (c_0, estimate)), combine((c_t, x_t), (c_0, x0)), log_var_of


def normal_kl(mean: Tensor, log_var: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(N(mean, e^log_var) | N(mean_p, e^log_var_p)), elementwise, nats."""
    ratio = log_var - log_var_p
    distance = (mean - mean_p) ** 2 * torch.exp(-log_var_p)
    return 0.5 * (torch.exp(ratio) - 1 - ratio + distance)


def prior_term(x0: Tensor, t: Level) -> Tensor:
    """KL(q(x_T | x0) | N(0, 1)), nats per dimension, (B,), for x0 (B, *)."""
    log_var = 2 * along(t.sigma.log(), x0) * torch.ones_like(x0)
    zero = torch.zeros_like(x0)
    return normal_kl(combine((t.alpha, x0)), log_var, zero, zero).flatten(1).mean(1)


def grey_log_probability(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log probability of the grey values x0 under N(mean, e^log_var), open tails at -1 and 1.

    Args:
        x0: Images (B, *) in [-1, 1], of 256 grey values.
        mean: (B, *).
        log_var: (B, *).

    Returns:
        (B, *), at least log 1e-12 (Ho et al., eq. 13).
    """
    std = torch.exp(0.5 * log_var)
    above = torch.special.ndtr((x0 - mean + BIN / 2) / std)
    below = torch.special.ndtr((x0 - mean - BIN / 2) / std)
    above = torch.where(x0 > 0.999, torch.ones_like(above), above)
    below = torch.where(x0 < -0.999, torch.zeros_like(below), below)
    return (above - below).clamp_min(1e-12).log()
