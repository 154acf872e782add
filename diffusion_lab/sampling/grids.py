r"""Time grids: which levels a sampler visits.

A grid gives S + 1 decreasing times: S that the network is called at, then 0. On a discrete
schedule they are nodes k/T, so that every call is at a trained time. The names are those of
Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed" (arXiv 2305.08891,
table 2); samplers take the pairs (t, s) from the list and never recompute a stride.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffusion_lab.diffusion.schedules import Schedule


class Grid(ABC):
    """Times that a sampler visits."""

    @abstractmethod
    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """`steps` decreasing times in (0, start], float64, shape (steps,)."""

    def __call__(self, schedule: Schedule, steps: int, start: float | None = None) -> Tensor:
        """The visited times, then 0: shape (steps + 1,).

        Args:
            schedule: Discrete schedules are visited at their nodes.
            steps: S, from 1 to T on a discrete schedule.
            start: Noisiest time; the schedule's t_max unless given.

        Raises:
            ValueError: more steps than the schedule has.
        """
        start = schedule.t_max if start is None else start
        available = None if schedule.steps is None else round(start * schedule.steps)
        if steps < 1 or (available is not None and steps > available):
            most = "" if available is None else f" and at most {available}, the schedule's steps"
            raise ValueError(f"sampler.steps={steps} must be at least 1{most}")
        times = self.visited(schedule, steps, start)
        return torch.cat((times, torch.zeros(1, dtype=torch.float64)))


class Trailing(Grid):
    """t_i = start (1 - i/S): begins at the noisiest time; rounded to nodes where discrete."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = round(T' - i T'/S) on a discrete schedule, T' = start T."""
        i = torch.arange(steps, dtype=torch.float64)
        if schedule.steps is None:
            return start * (1 - i / steps)
        last = round(start * schedule.steps)
        return torch.round(last - i * (last / steps)) / schedule.steps


class Leading(Grid):
    """Every floor(T/S)-th step counted from the cleanest; never visits the noisiest step."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = 1 + i floor(T'/S), i = S-1..0; evenly from t_min where time is continuous."""
        i = torch.arange(steps, dtype=torch.float64).flip(0)
        if schedule.steps is None:
            return schedule.t_min + i * ((start - schedule.t_min) / steps)
        stride = round(start * schedule.steps) // steps
        return (1 + i * stride) / schedule.steps


class Linspace(Grid):
    """Evenly from the noisiest to the cleanest trained time, both visited."""

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """k_i = 1 + round(linspace(T'-1, 0, S)); linspace(start, t_min, S) where continuous."""
        if schedule.steps is None:
            return torch.linspace(start, schedule.t_min, steps, dtype=torch.float64)
        last = round(start * schedule.steps)
        ascending = torch.linspace(0, last - 1, steps, dtype=torch.float64)
        nodes = ascending.round().flip(0) if steps > 1 else torch.tensor([last - 1.0]).double()
        return (1 + nodes) / schedule.steps


class UniformLogSNR(Grid):
    """Evenly spaced in log-SNR from the start to t_min, snapped to nodes where discrete.

    At alpha = 0 log-SNR is -inf: the start is then visited, and spacing begins at the time
    `margin` before it. On a discrete schedule two times that fall on one node are moved apart.

    Args:
        margin: In t, in (0, 1).
    """

    def __init__(self, margin: float = 1e-2) -> None:
        if not 0 < margin < 1:
            raise ValueError(f"margin={margin} must be between 0 and 1")
        self.margin = margin

    def visited(self, schedule: Schedule, steps: int, start: float) -> Tensor:
        """Inverse of log_snr on an even grid."""
        times = [torch.tensor([start], dtype=torch.float64)]
        first = start
        if not bool(torch.isfinite(schedule(start).log_snr)):
            first, steps = start - self.margin, steps - 1
        else:
            times = []
        ends = schedule(torch.tensor([first, schedule.t_min])).log_snr
        if steps:
            even = torch.linspace(float(ends[0]), float(ends[1]), steps, dtype=torch.float64)
            times.append(schedule.time_of(even))
        visited = torch.cat(times)
        return visited if schedule.steps is None else _distinct(visited, schedule.steps)


def _distinct(times: Tensor, steps: int) -> Tensor:
    """Nearest nodes of decreasing times, each at least one node below the one before."""
    nodes = torch.round(times * steps).long().tolist()
    count = len(nodes)
    for i in range(1, count):
        nodes[i] = min(nodes[i], nodes[i - 1] - 1)
    for i in range(count - 1, -1, -1):
        nodes[i] = max(nodes[i], count - i)
    return torch.tensor(nodes, dtype=torch.float64) / steps
