r"""The sampling loop, written once, and what a sampler is.

A sampler walks down a grid of noise levels. At each pair (t, s), s < t, it asks the denoiser for
x0-hat at t and moves x from t to s. A new sampler writes `step` and nothing else: the loop owns
the levels, the past, forward noise where a grid rises, and constraints on the state.

The denoiser is never called at sigma = 0: a step that ends there takes the x0-hat of its last
evaluation. Sampling runs under no_grad, not inference_mode, since guidance may need gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, combine, levels, transition
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.sampling.grids import Grid, Trailing

DenoiseFn = Callable[[Tensor, Level], Denoised]
X0Constraint = Callable[[Tensor, Level], Tensor]
StateConstraint = Callable[[Tensor, Level, Noise], Tensor]


class Step(NamedTuple):
    """One step of sampling.

    Attributes:
        s: Level that the step ended at.
        x: State there, (B, *).
        t: Level that the denoiser was last asked at.
        x_t: State there.
        x0: Its answer, x0-hat.
    """

    s: Level
    x: Tensor
    t: Level
    x_t: Tensor
    x0: Tensor


class Guidance(Protocol):
    """Turns a model and its conditions into a denoiser; a fresh closure a sampling call."""

    def __call__(
        self, model: GaussianDiffusion, label: Tensor | None = None, **cond: Tensor
    ) -> DenoiseFn:
        """A function (x_t, level) -> Denoised."""
        ...


class Sampler(ABC):
    """How to walk from noise to data; holds no state between calls.

    Args:
        steps: Steps S. None is every step of a discrete schedule, and 1000 on a continuous one.
        grid: Which times are visited.
    """

    memory = 0
    """How many past steps `step` may look at."""
    inverts = False
    """Whether it walks up a rising grid, from data to noise; else a rise is forward noise."""

    def __init__(self, steps: int | None = None, grid: Grid | None = None) -> None:
        if steps is not None and (
            isinstance(steps, bool) or not isinstance(steps, int) or steps < 1
        ):
            raise ValueError(
                f"sampler.steps={steps!r} must be an integer of at least 1 (or null for every "
                "step of the schedule)"
            )
        self.steps = steps
        self.grid = Trailing() if grid is None else grid

    def times(self, schedule: Schedule, start: float | None = None) -> Tensor:
        """The grid: times visited, then 0; float64, shape (S + 1,).

        Raises:
            ValueError: more steps than a discrete schedule has.
        """
        return self.grid(schedule, self.steps, start)

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule this sampler cannot run on; called when a run is configured.

        Raises:
            ValueError: e.g. more steps than the schedule has.
        """
        self.times(schedule)

    def prepare(
        self, schedule: Schedule, x: Tensor, t: Level, noise: Noise
    ) -> tuple[Tensor, Level]:
        """State and level that a step, the last one too, begins at; most begin where they are."""
        return x, t

    @abstractmethod
    def step(
        self,
        denoise: DenoiseFn,
        schedule: Schedule,
        x: Tensor,
        t: Level,
        s: Level,
        past: Sequence[Step],
        noise: Noise,
    ) -> Step:
        """Move x from level t to level s < t, s.sigma > 0; `past` ends with the latest step.

        A sampler that inverts moves it up, s > t.
        """

    def trajectory(
        self,
        denoise: DenoiseFn,
        schedule: Schedule,
        times: Tensor,
        x: Tensor,
        noise: Noise,
        constraint: StateConstraint | None = None,
    ) -> Iterator[Step]:
        """Yield every step along `times`, from state x at times[0].

        A pair that rises is forward noise, q(x_t | x_s), and clears the past, unless the sampler
        inverts.
        """
        past: deque[Step] = deque(maxlen=self.memory)
        for t, s in pairwise(levels(schedule(times))):
            if s.t > t.t and not self.inverts:
                r, v = transition(t, s)
                x = combine((r, x), (v.sqrt(), noise.normal(x)))
                past.clear()
                continue
            x, t = self.prepare(schedule, x, t, noise)
            if s.sigma > 0:
                step = self.step(denoise, schedule, x, t, s, past, noise)
            else:
                x0 = denoise(x, t).x0
                step = Step(s, combine((s.alpha, x0)), t, x, x0)
            if constraint is not None:
                step = step._replace(x=constraint(step.x, s, noise))
            x = step.x
            past.append(step)
            yield step


@torch.no_grad()
def trajectory(
    model: GaussianDiffusion,
    sampler: Sampler,
    *,
    shape: Sequence[int],
    num_samples: int,
    noise: Noise,
    guidance: Guidance | None = None,
    label: Tensor | None = None,
    x: Tensor | None = None,
    start: float | None = None,
    x0_constraint: X0Constraint | None = None,
    constraint: StateConstraint | None = None,
    **cond: Tensor,
) -> Iterator[Step]:
    """Sample, yielding every step.

    Args:
        model: What to sample from; its mode (train or eval) is left as it is.
        sampler: How.
        shape: Shape of one sample, e.g. (1, 28, 28).
        num_samples: B, at least 1.
        noise: Where the starting noise and that of the steps comes from.
        guidance: How conditions are used; None is the model given its label.
        label: Class numbers (B,) on any device, or None for no class.
        x: State to start from at `start`, (B, *shape); the model's prior unless given. Inversion
            needs it: the image.
        start: Time to start at; the schedule's t_max unless given.
        x0_constraint: Applied to every x0-hat after guidance, e.g. clipping.
        constraint: Applied to the state after every step, e.g. inpainting.
        cond: Further conditioning of the model.

    Yields:
        Each `Step`, with tensors of shape (B, *shape) on the model's device.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} must be at least 1")
    parameter = next(model.parameters(), None)
    like = torch.zeros(0) if parameter is None else parameter
    times = sampler.times(model.schedule, start)
    if x is None:
        if sampler.inverts:
            raise ValueError(f"{type(sampler).__name__} starts from images: give x")
        blank = torch.empty((num_samples, *shape), dtype=like.dtype, device=like.device)
        x = model.prior(model.schedule(times[0]), noise.normal(blank))
    if label is not None:
        label = label.to(x.device)
    denoise = denoiser_of(model, guidance, label, x0_constraint, **cond)
    yield from sampler.trajectory(denoise, model.schedule, times, x, noise, constraint)


def sample(
    model: GaussianDiffusion,
    sampler: Sampler,
    *,
    shape: Sequence[int],
    num_samples: int,
    noise: Noise,
    guidance: Guidance | None = None,
    label: Tensor | None = None,
    x: Tensor | None = None,
    start: float | None = None,
    x0_constraint: X0Constraint | None = None,
    constraint: StateConstraint | None = None,
    **cond: Tensor,
) -> Tensor:
    """The end of `trajectory`, whose arguments these are: (B, *shape) on the model's device."""
    steps = trajectory(
        model,
        sampler,
        shape=shape,
        num_samples=num_samples,
        noise=noise,
        guidance=guidance,
        label=label,
        x=x,
        start=start,
        x0_constraint=x0_constraint,
        constraint=constraint,
        **cond,
    )
    return deque(steps, maxlen=1).pop().x


class SelfConditioned:
    """A self-conditioning model that remembers its last x0-hat through one sampling call.

    Chen et al., "Analog Bits" (arXiv 2208.04202, algorithm 2). Guidance asks for several answers in
    one batch; each is told its own. The first call is told 0.
    """

    def __init__(self, model: GaussianDiffusion) -> None:
        self.model = model
        self.last: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(
        self, x_t: Tensor, level: Level, label: Tensor | None = None, **cond: Tensor
    ) -> Denoised:
        """The model's answer, which it is told the next time."""
        last = self.last
        if last is None:
            last = torch.zeros_like(x_t)
        elif len(last) != len(x_t):  # guidance came or went: the first rows are the conditional's
            last = last[: len(x_t)].repeat(-(-len(x_t) // len(last)), *[1] * (x_t.ndim - 1))
        denoised: Denoised = self.model(x_t, level, label, estimate=last[: len(x_t)], **cond)
        self.last = denoised.x0.detach()
        return denoised


def denoiser_of(
    model: GaussianDiffusion,
    guidance: Guidance | None,
    label: Tensor | None,
    x0_constraint: X0Constraint | None = None,
    **cond: Tensor,
) -> DenoiseFn:
    """The denoiser that a sampler sees: guidance inside, then the constraint on x0-hat."""

    def plain(x_t: Tensor, level: Level) -> Denoised:
        return model(x_t, level, label, **cond)  # type: ignore[no-any-return]

    if model.self_conditioning:
        model = SelfConditioned(model)  # type: ignore[assignment]
    guided = plain if guidance is None else guidance(model, label, **cond)
    if x0_constraint is None:
        return guided

    def constrained(x_t: Tensor, level: Level) -> Denoised:
        denoised = guided(x_t, level)
        return denoised._replace(x0=x0_constraint(denoised.x0, level))

    return constrained
