r"""The sampling loop, written once, and what a sampler is.

A sampler walks down a list of noise levels. At each pair (t, s), s < t, it asks the denoiser for
x0-hat at t and moves x from t to s. A new sampler writes `step` and nothing else: the loop owns
the levels, the past, forward noise where the levels rise, and constraints on the state.

A sampler that moves by one answer says where it goes (`Here.ask`), for networks of two times; one
that follows the direction of an ODE asks for the answer at the level itself. The denoiser is never
called at sigma = 0: a step that ends there takes the x0-hat of its last evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine, transition
from diffusion_lab.diffusion.model import Denoised, DenoiseFn
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.ranges import Count, checked
from diffusion_lab.sampling.constraints import StateConstraint
from diffusion_lab.sampling.spacing import TimestepSpacing, Trailing


class Step(NamedTuple):
    """A step that ended at level s with state x; the denoiser's last answer x0 was at (t, x_t)."""

    s: Level
    x: Tensor
    t: Level
    x_t: Tensor
    x0: Tensor


class Here(NamedTuple):
    """Where a step begins, state x (B, *) at level t, sigma > 0; the last steps, latest last."""

    x: Tensor
    t: Level
    past: Sequence[Step]
    schedule: Schedule
    noise: Noise

    def ask(self, denoise: DenoiseFn, to: Level | None = None) -> Denoised:
        """The answer here; `to` is where this one answer will take the state."""
        return denoise(Query(self.x, self.t, to))


class Sampler(ABC):
    """How to walk from noise to data, in `steps` steps (None: all) at the times of `grid`."""

    memory = 0
    """How many past steps `step` may look at."""
    inverts = False
    """Whether it walks up, from data to noise; else a rise of the levels is forward noise."""

    @checked
    def __init__(self, steps: Count | None = None, grid: TimestepSpacing | None = None) -> None:
        self.steps = steps
        self.grid = Trailing() if grid is None else grid

    def times(self, schedule: Schedule, start: float | None = None) -> Tensor:
        """Times visited, then 0; float64, shape (S + 1,); see `TimestepSpacing`."""
        return self.grid(schedule, self.steps, start)

    def check(self, schedule: Schedule) -> None:
        """Check that the sampler can run on a schedule (ValueError), e.g. that it has the steps."""
        self.times(schedule)

    def prepare(self, here: Here) -> Here:
        """Change the state before any step, e.g. add noise (EDM's churn); unchanged by default."""
        return here

    @abstractmethod
    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Move the state from here to s, s.sigma > 0: s < t, or s > t if the sampler inverts."""

    def trajectory(
        self,
        denoise: DenoiseFn,
        schedule: Schedule,
        path: Sequence[Level],
        x: Tensor,
        noise: Noise,
        constraint: StateConstraint | None = None,
    ) -> Iterator[Step]:
        """Yield every step along `path`, e.g. `levels(schedule(self.times(schedule)))`, from x.

        A pair that rises is forward noise and clears the past, unless the sampler inverts.
        """
        past: deque[Step] = deque(maxlen=self.memory)
        for t, s in pairwise(path):
            if s.t > t.t and not self.inverts:
                r, v = transition(t, s)
                x = combine((r, x), (v.sqrt(), noise.normal(x)))
                past.clear()
                continue
            here = self.prepare(Here(x, t, past, schedule, noise))
            if s.sigma > 0:
                step = self.step(denoise, here, s)
            else:
                x0 = here.ask(denoise, s).x0
                step = Step(s, combine((s.alpha, x0)), here.t, here.x, x0)
            if constraint is not None:
                step = step._replace(x=constraint(step.x, s, noise))
            x = step.x
            past.append(step)
            yield step
