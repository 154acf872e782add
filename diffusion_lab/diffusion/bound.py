r"""The variational bound, term by term (Ho et al., arXiv 2006.11239, eq. 5).

    -log p(x0) <= KL(q(x_T | x0) | p(x_T)) + sum over t > s of KL(q(x_s | x_t, x0) | p(x_s | x_t))
                  - E log p(x0 | x_{t_1})

with p(x_s | x_t) = N(mean of `posterior` at x0-hat, variance), log variance between that of the
posterior ("small") and that of the transition ("large"). Everything is per dimension, in nats;
divide by ln 2 for bits. x0 holds grey values of 8 bits, or (`grey=False`) any numbers, whose last
term is then a density. The steps t > s may be all of a discrete schedule, some of them, or any
levels of a continuous one: each list of levels gives a bound of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, along, combine, marginal, posterior, transition
from diffusion_lab.diffusion.model import Denoised, DenoiseFn
from diffusion_lab.diffusion.noise import Noise

BIN = 2.0 / 255.0
"""Width of a grey value of 8 bits in [-1, 1]."""

Variance = float | Callable[[Level, Level], Tensor] | None
"""Of a reverse step: a fixed fraction of the log variance (0 small, 1 large), None for the learned
one, or a function (s, t) -> log variance, float64 of the levels' shape."""


def log_variance(s: Level, t: Level, fraction: float | Tensor, like: Tensor) -> Tensor | float:
    """Log variance f log large + (1 - f) log small of a reverse step from t to s.

    For images (B, *); the fraction f in [0, 1] is a number or (B, *). At sigma_s = 0 "small" would
    be 0, and the transition's variance stands for it (as in Ho et al.'s code).
    """
    large = transition(s, t)[1].log()
    small = torch.where(s.sigma > 0, posterior(s, t).variance.log(), large)
    return along(small, like) + fraction * along(large - small, like)


def bound_terms(
    denoise: DenoiseFn,
    x0: Tensor,
    path: Sequence[Level],
    noise: Noise,
    variance: Variance = 1.0,
    *,
    grey: bool = True,
    prior: tuple[float | Tensor, float | Tensor] = (0.0, 1.0),
) -> Tensor:
    """All terms of the bound, one draw of noise for each; their sum bounds -log p(x0).

    `path` holds S + 1 levels of shape (), falling from the prior's to one of sigma = 0 (else a
    ValueError); `prior` is the mean and standard deviation of p(x_T), see `prior_term`.

    Returns:
        Nats per dimension, (B, S + 1): the prior's term, those of the steps from noise to data, the
        last of which is -log p(x0 | x_t), of grey values of 8 bits or (`grey=False`) a density.
    """
    if not all(s.t < t.t for t, s in pairwise(path)) or len(path) < 2 or path[-1].sigma > 0:
        times = ", ".join(f"{float(level.t):.3g}" for level in path[:8])
        raise ValueError(f"path={times}, ...: the times of a bound must fall, down to t = 0")
    terms = [prior_term(x0, path[0], *prior)]
    for t, s in pairwise(path):
        x_t = marginal(x0, noise.normal(x0), t)
        terms.append(bound_term(x0, x_t, s, t, denoise(Query(x_t, t)), variance, grey))
    return torch.stack(terms, dim=1)


def bounds_by_end(
    denoise: DenoiseFn,
    x0: Tensor,
    path: Sequence[Level],
    noise: Noise,
    variance: Variance = 1.0,
    *,
    grey: bool = True,
    prior: tuple[float | Tensor, float | Tensor] = (0.0, 1.0),
) -> Tensor:
    """The whole bound for each level that its noising may be ended at, from one pass.

    A network that was hardly trained near t = 0 has a tighter bound where x0 is told from a noisier
    level. Arguments are those of `bound_terms`.

    Returns:
        Nats per dimension, (B, S): the bound of path[: k + 1] and then sigma = 0, for k = 0 .. S-1.
    """
    total = prior_term(x0, path[0], *prior)
    clean, bounds = path[-1], list[Tensor]()
    for t, s in pairwise(path):
        x_t = marginal(x0, noise.normal(x0), t)
        denoised = denoise(Query(x_t, t))
        bounds.append(total + bound_term(x0, x_t, clean, t, denoised, variance, grey))
        if s.sigma > 0:
            total = total + bound_term(x0, x_t, s, t, denoised, variance, grey)
    return torch.stack(bounds, dim=1)


def bound_term(
    x0: Tensor,
    x_t: Tensor,
    s: Level,
    t: Level,
    denoised: Denoised,
    fraction: Variance = None,
    grey: bool = True,
) -> Tensor:
    """One term of the bound, nats per dimension, (B,).

    Of the step from t, where the model's answer is `denoised`, to s; levels of shape () or (B,). At
    sigma_s = 0 it is -log p(x0 | x_t): of x0's grey value of 8 bits, or without `grey` the density.
    A missing fraction that the network did not learn is a ValueError.
    """
    q, log_var = posterior(s, t), _log_variance(x0, s, t, denoised, fraction)
    mean, true_mean = q.mean(x_t, denoised.x0), q.mean(x_t, x0)
    finite = torch.where(q.variance > 0, q.variance, torch.ones_like(q.variance))
    true_log_var = along(finite.log(), x0) * torch.ones_like(x0)
    kl = normal_kl(true_mean, true_log_var, mean, log_var)
    if bool((s.sigma > 0).all()):
        return kl.flatten(1).mean(1)
    first = along((s.sigma == 0).double(), x0) * torch.ones_like(x0)
    log_probability = grey_log_probability if grey else normal_log_density
    likelihood = -log_probability(x0, mean, log_var)
    return torch.where(first > 0, likelihood, kl).flatten(1).mean(1)


def _log_variance(x0: Tensor, s: Level, t: Level, denoised: Denoised, fraction: Variance) -> Tensor:
    """Log variance of the reverse step, (B, *)."""
    if callable(fraction):
        return along(fraction(s, t), x0) * torch.ones_like(x0)
    f = denoised.variance_fraction if fraction is None else fraction
    if f is None:
        raise ValueError("this network learned no variance: build it with learned_variance=true")
    log_var = log_variance(s, t, f, x0)
    return torch.as_tensor(log_var, dtype=x0.dtype, device=x0.device).expand_as(x0)


def normal_kl(mean: Tensor, log_var: Tensor, mean_p: Tensor, log_var_p: Tensor) -> Tensor:
    """KL(N(mean, e^log_var) | N(mean_p, e^log_var_p)), elementwise, nats."""
    ratio = log_var - log_var_p
    distance = (mean - mean_p) ** 2 * torch.exp(-log_var_p)
    return 0.5 * (torch.exp(ratio) - 1 - ratio + distance)


def prior_term(
    x0: Tensor, t: Level, mean: float | Tensor = 0.0, std: float | Tensor = 1.0
) -> Tensor:
    """KL(q(x_T | x0) | N(mean, std^2)), nats per dimension, (B,), for x0 (B, *).

    Mean and std are numbers or tensors that meet x0.
    """
    log_var = 2 * along(t.sigma.log(), x0) * torch.ones_like(x0)
    goal = torch.zeros_like(x0) + mean
    log_var_p = 2 * (torch.zeros_like(x0) + std).log()
    return normal_kl(combine((t.alpha, x0)), log_var, goal, log_var_p).flatten(1).mean(1)


def normal_log_density(x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log density of N(mean, e^log_var) at x, elementwise, nats."""
    distance = (x - mean) ** 2 * torch.exp(-log_var)
    return -0.5 * (distance + log_var + math.log(2 * math.pi))


def grey_log_probability(x0: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log probability of grey values x0 in [-1, 1] under N(mean, e^log_var), elementwise.

    The tails at -1 and 1 are open; at least log 1e-12 (Ho et al., eq. 13).
    """
    std = torch.exp(0.5 * log_var)
    away = x0 - mean
    near = -away.abs()  # mirrored: near 1 the difference of two probabilities would lose digits
    inner = _cumulative((near + BIN / 2) / std) - _cumulative((near - BIN / 2) / std)
    black = _cumulative((away + BIN / 2) / std)
    white = _cumulative((BIN / 2 - away) / std)
    probability = torch.where(x0 > 0.999, white, torch.where(x0 < -0.999, black, inner))
    return probability.clamp_min(1e-12).log()


def _cumulative(x: Tensor) -> Tensor:
    """The standard normal's P(X < x); torch.special.ndtr is 0 below -5.5 in single precision."""
    return 0.5 * torch.erfc(-x / math.sqrt(2))
