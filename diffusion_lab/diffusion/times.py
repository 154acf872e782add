r"""Timestep distributions: which noise levels are trained, and how often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, Positive, checked


class TimestepDistribution(ABC):
    """The distribution of training times."""

    @property
    def learner(self) -> TimestepDistribution:
        """Which distribution an objective checks, teaches, weighs by and stores: itself."""
        return self

    @abstractmethod
    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Time in [0, 1] at probability u in [0, 1)."""

    def times(self, schedule: Schedule, u: Tensor) -> Tensor:
        """Trained times of the schedule at probabilities u, float64, of u's shape."""
        t = self.quantile(u, schedule)
        if schedule.steps is not None:  # t in [(k-1)/T, k/T) is step k: each gets its share
            t = (torch.floor(t * schedule.steps) + 1) / schedule.steps
            return t.clamp(max=1.0)
        return schedule.t_min + (schedule.t_max - schedule.t_min) * t

    def __call__(self, schedule: Schedule, noise: Noise, n: int) -> Tensor:
        """`n` trained times of the schedule; float64 on the CPU, shape (n,)."""
        return self.times(schedule, noise.uniform(n))

    def importance(self, schedule: Schedule, t: Tensor) -> Tensor | None:
        """Factor on the loss that makes up for visiting t more often; None is 1."""
        return None

    def check(self, schedule: Schedule) -> None:  # noqa: B027 (most fit all)
        """Check that the schedule fits (ValueError)."""

    def observe(  # noqa: B027 (most learn nothing)
        self, schedule: Schedule, t: Tensor, loss: Tensor
    ) -> None:
        """Learn from the losses (B,) of a training step at times t (B,)."""

    def state_dict(self) -> dict[str, Any]:
        """What was learned, plain containers and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 (nothing to restore)
        """Go on from what was learned."""


class UniformTime(TimestepDistribution):
    """t ~ U(0, 1); on a discrete schedule every step is equally likely (Ho et al., algorithm 1)."""

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The identity."""
        return u


class LogitNormalTime(TimestepDistribution):
    """logit(t) ~ N(mean, std^2) (Esser et al., arXiv 2403.03206, eq. 19)."""

    @checked
    def __init__(self, mean: float = 0.0, std: Positive = 1.0) -> None:
        self.mean, self.std = mean, std

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """sigmoid(mean + std Phi^-1(u))."""
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


class LogNormalSigma(TimestepDistribution):
    """ln(sigma / alpha) ~ N(mean, std^2) (Karras et al., arXiv 2206.00364, table 1).

    Levels outside the schedule's trained range are moved to its ends.
    """

    @checked
    def __init__(self, mean: float = -1.2, std: Positive = 1.2) -> None:
        self.mean, self.std = mean, std

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """The time at which ln(sigma / alpha) = mean + std Phi^-1(u)."""
        return schedule.time_of(-2.0 * (self.mean + self.std * torch.special.ndtri(u)))

    def times(self, schedule: Schedule, u: Tensor) -> Tensor:
        """The quantile, at the nearest trained time."""
        return schedule.snap(self.quantile(u, schedule))


class StratifiedTime(TimestepDistribution):
    """Another distribution, its n times drawn one from each n-th of the probability.

    Every batch then covers all noise levels, and its mean loss varies less (Kingma et al.,
    "Variational Diffusion Models", arXiv 2107.00630, appendix I.1). With several processes each
    covers them with its own images.
    """

    def __init__(self, law: TimestepDistribution) -> None:
        self.law = law

    @property
    def learner(self) -> TimestepDistribution:
        """The distribution of one time."""
        return self.law.learner

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """That of the distribution of one time."""
        return self.law.quantile(u, schedule)

    def __call__(self, schedule: Schedule, noise: Noise, n: int) -> Tensor:
        """`n` trained times, the i-th from probabilities [i/n, (i + 1)/n)."""
        u = (torch.arange(n, dtype=torch.float64) + noise.uniform(n)) / n
        return self.law.times(schedule, u)


class ImportanceTime(TimestepDistribution):
    r"""p(t) in proportion to sqrt(E[loss^2 | t]) (Nichol & Dhariwal, arXiv 2102.09672, eq. 18).

    The loss is divided by p(t), so that its expectation is that of uniform times, and its variance
    the smallest. E[loss^2] is the mean of the last `history` losses in each of `bins` intervals of
    time, which must divide the steps of a discrete schedule; until all have that many, times are
    uniform. A share `uniform` of uniform times is mixed in. The paper has one interval a step.
    """

    @checked
    def __init__(
        self,
        bins: Count = 100,
        history: Count = 10,
        uniform: Annotated[float, Gt(0), Le(1)] = 0.001,
    ) -> None:
        self.uniform = uniform
        self.losses = torch.zeros(bins, history, dtype=torch.float64)
        self.counts = torch.zeros(bins, dtype=torch.long)

    @property
    def probabilities(self) -> Tensor:
        """Probability p of each interval, float64 (bins,), adding up to 1."""
        bins, history = self.losses.shape
        even = torch.full((bins,), 1.0 / bins, dtype=torch.float64)
        if bool((self.counts < history).any()) or not bool(self.losses.any()):
            return even
        p = self.losses.square().mean(1).sqrt()
        return (1 - self.uniform) * p / p.sum() + self.uniform * even

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        """Inverse of the piecewise linear distribution function."""
        p = self.probabilities
        ends = p.cumsum(0)
        k = torch.searchsorted(ends, u, right=True).clamp(max=len(p) - 1)
        inside = ((u - (ends[k] - p[k])) / p[k]).clamp(0, 1 - 1e-12)
        return (k + inside) / len(p)

    def importance(self, schedule: Schedule, t: Tensor) -> Tensor:
        """(1 / bins) / p of t's interval."""
        p = self.probabilities
        return 1.0 / (len(p) * p[self._interval(schedule, t)])

    def check(self, schedule: Schedule) -> None:
        """The intervals must hold whole steps (ArgumentError)."""
        bins = len(self.counts)
        if schedule.steps is not None and schedule.steps % bins:
            raise ArgumentError(
                "bins", bins, f"must divide the steps of the schedule, {schedule.steps}"
            )

    def observe(self, schedule: Schedule, t: Tensor, loss: Tensor) -> None:
        """Remember the losses; those of all processes, in the order of their ranks."""
        t, loss = t.double().cpu(), loss.detach().double().cpu()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            pairs: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(pairs, (t, loss))
            t, loss = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        history = self.losses.shape[1]
        for k, value in zip(self._interval(schedule, t).tolist(), loss.tolist(), strict=True):
            self.losses[k, int(self.counts[k]) % history] = value
            self.counts[k] += 1

    def state_dict(self) -> dict[str, Any]:
        """The remembered losses."""
        return {"losses": self.losses.clone(), "counts": self.counts.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again."""
        self.losses, self.counts = state["losses"].clone(), state["counts"].clone()

    def _interval(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The interval from which `times` made t."""
        if schedule.steps is not None:  # node k stands for [(k-1)/T, k/T)
            t = t - 0.5 / schedule.steps
        else:
            t = (t - schedule.t_min) / (schedule.t_max - schedule.t_min)
        return (t * len(self.counts)).floor().long().clamp(0, len(self.counts) - 1)
