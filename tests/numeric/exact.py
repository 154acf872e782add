"""Exact denoisers: data distributions whose E[x0 | x_t] is known, in place of a network."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import Level, levels
from diffusion_lab.diffusion.model import Denoised
from diffusion_lab.diffusion.objectives import Batch, TrainContext


def ask(model, x, level, label=None, **given):
    """The answer of a model or a denoiser to one query."""
    return model(Query(x, level, given=Condition(label, **given)))


def loss_of(objective, model, x0, noise, label=None):
    """Losses of an objective (B,)."""
    return objective(model, Batch(x0, Condition(label)), TrainContext(noise))


def answering(function):
    """A denoiser made of a function (x_t, level) -> Denoised."""
    return lambda query: function(query.x, query.at)


def beside(level: Level) -> tuple[Tensor, Tensor]:
    """Alpha and sigma ready to meet x (B, d), for a level of shape () or (B,)."""
    return tuple(part[:, None] if part.ndim else part for part in (level.alpha, level.sigma))


class GaussianData:
    """x0 ~ N(mean, diag(std^2)); the optimal x0-hat is linear in x_t."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float64)
        self.std = torch.tensor(std, dtype=torch.float64)

    def gain(self, level: Level) -> Tensor:
        alpha, sigma = beside(level)
        return alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)

    def __call__(self, query: Query) -> Denoised:
        x_t, level = query.x, query.at
        x0 = self.mean + self.gain(level) * (x_t - beside(level)[0] * self.mean)
        return Denoised(x0)


class MixtureData:
    """An equal mixture of isotropic Gaussians with means (K, d) and one std."""

    def __init__(self, means: Tensor, std: float) -> None:
        self.means = means.double()
        self.std = std

    def __call__(self, query: Query) -> Denoised:
        x_t, level = query.x, query.at
        a, s = (part[..., None] for part in beside(level))
        variance = a**2 * self.std**2 + s**2
        away = x_t[:, None, :] - a * self.means[None]
        share = torch.softmax(-0.5 * (away**2).sum(-1) / variance[..., 0], dim=1)
        each = self.means[None] + a * self.std**2 / variance * away
        return Denoised((share[..., None] * each).sum(1))


class Constant:
    """Whatever x_t is, x0-hat is the same."""

    def __init__(self, x0: Tensor) -> None:
        self.x0 = x0
        self.calls = 0

    def __call__(self, query: Query) -> Denoised:
        self.calls += 1
        return Denoised(self.x0.expand_as(query.x).clone())


class Drawn:
    """Noise from one generator, in float64: what a reference library would draw."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, generator=self.generator)

    def uniform(self, n: int) -> Tensor:
        return torch.rand(n, dtype=torch.float64, generator=self.generator)


def run(sampler, denoise, schedule, x, noise=None, times=None):
    """The last step of a sampling run."""
    times = sampler.times(schedule) if times is None else times
    return list(
        sampler.trajectory(denoise, schedule, levels(schedule(times)), x, noise or Drawn())
    )[-1]
