r"""Time grids: which levels a sampler visits.

A grid gives S + 1 decreasing times: S that the network is called at, then 0. On a discrete
schedule they are nodes k/T, so that every call is at a trained time. The names are those of
Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (arXiv 2305.08891,
table 2); samplers take the pairs (t, s) from the list and never recompute a stride.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, checked

DEFAULT_CONTINUOUS_STEPS = 1000
"""Steps of a sampler whose `steps` is null on a schedule whose time is continuous."""


class TimestepSpacing(ABC):
    """Times that a sampler visits."""

    @abstractmethod
    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """`steps` decreasing times in (0, start], float64, shape (steps,)."""

    def count(self, schedule: Schedule, steps: int | None, start: float) -> int:
        """S where `steps` is None: every step of a discrete schedule, else 1000, up to `start`."""
        if steps is not None:
            return steps
        return max(1, round((schedule.steps or DEFAULT_CONTINUOUS_STEPS) * start))

    def __call__(self, schedule: Schedule, steps: int | None, start: float | None = None) -> Tensor:
        """The visited times from `start` (None: t_max), then 0: shape (S + 1,).

        `steps` None is `count`'s S; more than a discrete schedule has are an ArgumentError.
        """
        start = schedule.t_max if start is None else start
        if schedule.steps is None and not start > schedule.t_min:
            raise ArgumentError(
                "start", start, f"must lie above the schedule's cleanest time, {schedule.t_min:g}"
            )
        steps = self.count(schedule, steps, start)
        available = None if schedule.steps is None else round(start * schedule.steps)
        if steps < 1 or (available is not None and steps > available):
            most = "" if available is None else f" and at most {available}, the schedule's steps"
            raise ArgumentError("steps", steps, f"must be at least 1{most}")
        times = self.visited(schedule, steps, start)
        return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


class Trailing(TimestepSpacing):
    """t_i = start (1 - i/S): begins at the noisiest time; rounded to nodes where discrete."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = round(T' - i T'/S) on a discrete schedule, T' = start T."""
        i = torch.arange(steps, dtype=torch.float64)
        if schedule.steps is None:
            return start * (1 - i / steps)
        last = round(start * schedule.steps)
        return torch.round(last - i * (last / steps)) / schedule.steps


class Leading(TimestepSpacing):
    """Every floor(T/S)-th step counted from the cleanest; never visits the noisiest step."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = 1 + i floor(T'/S), i = S-1..0; evenly from t_min where time is continuous."""
        i = torch.arange(steps, dtype=torch.float64).flip(0)
        if schedule.steps is None:
            return schedule.t_min + i * ((start - schedule.t_min) / steps)
        stride = round(start * schedule.steps) // steps
        return (1 + i * stride) / schedule.steps


class Linspace(TimestepSpacing):
    """Evenly from the noisiest to the cleanest trained time, both visited."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = 1 + round(linspace(T'-1, 0, S)); linspace(start, t_min, S) where continuous."""
        if schedule.steps is None:
            return torch.linspace(start, schedule.t_min, steps, dtype=torch.float64)
        last = round(start * schedule.steps)
        ascending = torch.linspace(0, last - 1, steps, dtype=torch.float64)
        nodes = ascending.round().flip(0) if steps > 1 else torch.tensor([last - 1.0]).double()
        return (1 + nodes) / schedule.steps


class UniformLogSNR(TimestepSpacing):
    """Evenly spaced in log-SNR from the start to t_min, snapped to nodes where discrete.

    At alpha = 0 log-SNR is -inf: the start is then visited, and spacing begins at the time
    `margin` before it. On a discrete schedule two times that fall on one node are moved apart.
    """

    @checked
    def __init__(self, margin: Annotated[float, Gt(0), Lt(1)] = 1e-2) -> None:
        self.margin = margin

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """Inverse of log_snr on an even grid."""
        times = [torch.tensor([start], dtype=torch.float64)]
        first = start
        if not bool(torch.isfinite(schedule(start).log_snr)):
            first, steps = start - self.margin, steps - 1
            if schedule.steps is None and not first > schedule.t_min:
                raise ArgumentError(
                    "margin",
                    self.margin,
                    f"must be smaller: it leaves no time between the start {start:g} and the "
                    f"cleanest, {schedule.t_min:g}",
                )
        else:
            times = []
        ends = schedule(torch.tensor([first, schedule.t_min], dtype=torch.float64)).log_snr
        if steps:
            even = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)
            times.append(schedule.time_of(even))
        visited = torch.cat(times)
        return visited if schedule.steps is None else _distinct(visited, schedule.steps)


class Quadratic(TimestepSpacing):
    """t_i in proportion to a square: dense at the clean end (Song et al., 2010.02502, D.3)."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """t_min + (start - t_min) (1 - i / (S - 1))^2, i = 0..S-1; at nodes where discrete."""
        falling = torch.linspace(1, 0, steps, dtype=torch.float64)
        visited = schedule.t_min + (start - schedule.t_min) * falling**2
        return visited if schedule.steps is None else _distinct(visited, schedule.steps)


class Karras(TimestepSpacing):
    r"""sigma_i^(1/rho) evenly from sigma_max^(1/rho) to sigma_min^(1/rho), of sigma / alpha.

    Karras et al. (arXiv 2206.00364, eq. 5). Only levels between the schedule's own ends exist; a
    start from sigma / alpha above `sigma_max` (as at alpha = 0) is visited first, as one of the S.
    """

    def __init__(self, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        if not rho > 0 or not 0 < sigma_min < sigma_max:
            name, value = ("sigma_min", sigma_min) if rho > 0 else ("rho", rho)
            raise ArgumentError(
                name,
                value,
                f"does not fit: rho > 0 and 0 < sigma_min < sigma_max={sigma_max} are needed; the "
                "paper takes 7, 0.002 and 80",
            )
        self.rho, self.sigma_min, self.sigma_max = rho, sigma_min, sigma_max

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """The inverse of sigma / alpha on the list above."""
        ends = schedule(torch.tensor([start, schedule.t_min], dtype=torch.float64))
        noisiest, cleanest = (ends.sigma / ends.alpha).tolist()
        high, low = min(noisiest, self.sigma_max), max(cleanest, self.sigma_min)
        if steps > 1 and not low < high:
            raise ArgumentError(
                "sigma_min",
                self.sigma_min,
                f"must be smaller: there are no levels between it and the start's sigma / alpha, "
                f"{noisiest:g}",
            )
        first = torch.tensor([start] if noisiest > high * (1 + 1e-9) else [], dtype=torch.float64)
        ramp = torch.linspace(0, 1, steps - len(first), dtype=torch.float64)
        high, low = high ** (1 / self.rho), low ** (1 / self.rho)
        log_sigma = self.rho * (high + ramp * (low - high)).log()
        visited = torch.cat((first, schedule.time_of(-2.0 * log_sigma)))
        if not len(first):
            visited[0] = start
        return visited if schedule.steps is None else _distinct(visited, schedule.steps)


class Listed(TimestepSpacing):
    """Times written out one by one; a rise between two is forward noise (see `RePaint`)."""

    def __init__(self, times: Sequence[float]) -> None:
        if not times or not all(0 < t <= 1 for t in times):
            raise ArgumentError(
                "times",
                list(times),
                "must be a list of times above 0 and at most 1 (1 is noise), e.g. [1, 0.8, 0.5, "
                "0.2]",
            )
        self.listed = torch.tensor([float(t) for t in times], dtype=torch.float64)

    def count(self, schedule: Schedule, steps: int | None, start: float) -> int:
        """1, which every schedule has: the list decides."""
        if steps not in (None, len(self.listed)):
            raise ArgumentError(
                "steps", steps, f"must be null or {len(self.listed)}, the number of listed times"
            )
        return 1

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """As listed; at nodes where discrete, equal neighbours once."""
        snapped = schedule.snap(self.listed[self.listed <= start + 1e-9])
        if not len(snapped):
            raise ArgumentError("start", start, "must not lie below all of the listed times")
        fresh = torch.cat((torch.ones(1, dtype=torch.bool), snapped.diff() != 0))
        return snapped[fresh]


class RePaint(TimestepSpacing):
    r"""Goes back up again and again: resampling for inpainting.

    Lugmayr et al. (arXiv 2201.09865, algorithm 1 and figure 9): after every `jump` steps down the
    walk rises by as many levels (forward noise) and comes down again, `repeats` times in all.
    """

    @checked
    def __init__(
        self, base: TimestepSpacing | None = None, jump: Count = 5, repeats: Count = 3
    ) -> None:
        self.base = Trailing() if base is None else base
        self.jump, self.repeats = jump, repeats

    def count(self, schedule: Schedule, steps: int | None, start: float) -> int:
        """That of the base."""
        return self.base.count(schedule, steps, start)

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """The base's levels, each stretch of `jump` walked `repeats` times."""
        levels = self.base.visited(schedule, steps, start)
        order: list[int] = []
        for first in range(0, len(levels), self.jump):
            last = min(first + self.jump, len(levels) - 1)
            stretch = list(range(first, last + 1)) if last > first else []
            for _ in range(self.repeats):
                order += stretch
        order = [k for i, k in enumerate(order) if i == 0 or k != order[i - 1]] or [0]
        return levels[torch.tensor(order)]


def _distinct(times: Tensor, steps: int) -> Tensor:
    """Nearest nodes of decreasing times, each at least one node below the one before."""
    nodes = torch.round(times * steps).long().tolist()
    count = len(nodes)
    for i in range(1, count):
        nodes[i] = min(nodes[i], nodes[i - 1] - 1)
    for i in range(count - 1, -1, -1):
        nodes[i] = max(nodes[i], count - i)
    return torch.tensor(nodes, dtype=torch.float64) / steps
