r"""The probability flow ODE with steps as long as a tolerance allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.model import DenoiseFn
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.ranges import Positive, checked
from diffusion_lab.sampling.ode import Frame, FrameSampler
from diffusion_lab.sampling.sampler import Here, Step
from diffusion_lab.sampling.spacing import TimestepSpacing

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0
"""Of the step length: caution, smallest and largest factor from one step to the next."""


class TooManyCallsError(RuntimeError):
    """A solver that keeps its tolerance asked the network too often."""


class Adaptive(FrameSampler):
    r"""Bogacki-Shampine 3(2) with a step length for each image (Shampine & Reichelt 1997, ode23).

    An image's step is accepted where the difference of its third- and second-order results, each
    number divided by atol + rtol max(|z|, |z new|), has a root mean square of at most 1. Images
    advance by their own clocks, so that none depends on which others are in its batch.

    `steps` intervals (None is 1) are those in which results are shown; they do not change the
    accuracy.
    """

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        frame: Frame | None = None,
        rtol: Positive = 1e-3,
        atol: Positive = 1e-3,
        max_calls: Annotated[int, Ge(10)] = 1000,
    ) -> None:
        super().__init__(1 if steps is None else steps, grid, frame)
        self.rtol, self.atol, self.max_calls = rtol, atol, max_calls

    def times(self, schedule: Schedule, start: float | None = None) -> Tensor:
        """The grid, then the cleanest trained time (where it is not the last visited), then 0."""
        times = super().times(schedule, start)
        end = torch.tensor([schedule.t_min], dtype=torch.float64)
        return torch.cat((times[:-1][times[:-1] > schedule.t_min], end, times[-1:]))

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """From t to s in as many steps of its own as each image needs.

        Raises:
            TooManyCallsError: `max_calls` do not suffice; names the tolerance.
        """
        (c_t, tau_t), (c_s, end) = self.frame(here.t), self.frame(s)
        tau = tau_t.expand(len(here.x)).clone()
        z, h = combine((1.0 / c_t, here.x)), (end - tau) / 4
        calls = 0

        def slope(z: Tensor, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """dz/dtau, the state and x0-hat of images at their own tau (B,)."""
            nonlocal calls
            calls += 1
            if calls > self.max_calls:
                raise TooManyCallsError(
                    f"max_calls={self.max_calls} network calls were not enough for "
                    f"rtol={self.rtol:g}, atol={self.atol:g}: raise one of them"
                )
            level = self.frame.level_at(here.schedule, tau)
            state = combine((self.frame(level)[0], z))
            x0 = denoise(Query(state, level)).x0
            return self.frame.slope(state, x0, level), state, x0

        first, _, _ = slope(z, tau)
        while bool((tau > end).any()):
            h = torch.maximum(h, end - tau)  # h < 0: never past the end
            new, last, state, x0, error = self._trial(slope, z, tau, h, first)
            accepted = (error <= 1) & (tau > end)
            reached = torch.where(h <= end - tau, end, tau + h)
            tau = torch.where(accepted, reached, tau)
            keep = accepted.double()
            z = combine((1 - keep, z), (keep, new))
            first = combine((1 - keep, first), (keep, last))
            factor = SAFETY * error.clamp_min(1e-10) ** (-1 / 3)
            h = torch.where(h == 0, h, h * factor.clamp(SHRINK, GROW))
        return Step(s, combine((c_s, z)), s, state, x0)

    def _trial(
        self, slope: Slope, z: Tensor, tau: Tensor, h: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One step of each image: z, slope, state and x0-hat at its end, and its error (B,)."""
        second, _, _ = slope(combine((1.0, z), (h / 2, first)), tau + h / 2)
        third, _, _ = slope(combine((1.0, z), (0.75 * h, second)), tau + 0.75 * h)
        new = combine((1.0, z), (2 / 9 * h, first), (1 / 3 * h, second), (4 / 9 * h, third))
        last, state, x0 = slope(new, tau + h)
        difference = combine(
            (-5 / 72 * h, first), (1 / 12 * h, second), (1 / 9 * h, third), (-1 / 8 * h, last)
        )
        scale = self.atol + self.rtol * torch.maximum(z.abs(), new.abs())
        error = ((difference / scale) ** 2).flatten(1).mean(1).sqrt().double().cpu()
        return new, last, state, x0, error
