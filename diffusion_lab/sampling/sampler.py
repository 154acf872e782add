r"""The sampling loop, written once, and what a sampler is.

A sampler walks down a grid of noise levels. At each pair (t, s), s < t, it asks the denoiser for
x0-hat at t and moves x from t to s. A new sampler writes `step` and nothing else: the loop owns
the levels, the past, forward noise where a grid rises, and constraints on the state.

A sampler that moves by one answer says where it goes (`Here.ask`), which is what networks of two
times (flow maps) are told; one that follows the direction of an ODE asks for the answer at the
level itself, as `Query.to` says.

The denoiser is never called at sigma = 0: a step that ends there takes the x0-hat of its last
evaluation. Sampling runs under no_grad, not inference_mode, since guidance may need gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import Level, combine, levels, transition
from diffusion_lab.diffusion.model import Denoised, DenoiseFn, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.sampling.spacing import Grid, Trailing

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


class Here(NamedTuple):
    """Where a step begins, and what it may use.

    Attributes:
        x: State (B, *).
        t: Its level, of shape (); sigma > 0.
        past: The last steps, at most the sampler's `memory`, the latest one last.
        schedule: For levels between those of the grid.
        noise: For what the step adds.
    """

    x: Tensor
    t: Level
    past: Sequence[Step]
    schedule: Schedule
    noise: Noise

    def ask(self, denoise: DenoiseFn, to: Level | None = None) -> Denoised:
        """The answer here; `to` is where this one answer will take the state."""
        return denoise(Query(self.x, self.t, to))


class Model(Protocol):
    """What guidance needs of a model; a `GaussianDiffusion` is one."""

    schedule: Schedule

    @property
    def num_classes(self) -> int | None:
        """Classes without the null class."""
        ...

    def __call__(self, query: Query) -> Denoised:
        """The model's answer."""
        ...


class Guidance(Protocol):
    """Makes a denoiser of a model by asking it under several conditions."""

    def __call__(self, model: Model) -> DenoiseFn:
        """A map of queries, a fresh closure for each sampling call."""
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
            raise ArgumentError(
                "steps", steps, "must be an integer of at least 1 (or null for every step)"
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

    def prepare(self, here: Here) -> Here:
        """Where a step, the last one too, begins in truth; most begin where they are."""
        return here

    @abstractmethod
    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Move the state from here to level s < t, s.sigma > 0.

        A sampler that inverts moves it up, s > t.
        """

    def trajectory(
        self,
        denoise: DenoiseFn,
        schedule: Schedule,
        path: Sequence[Level],
        x: Tensor,
        noise: Noise,
        constraint: StateConstraint | None = None,
    ) -> Iterator[Step]:
        """Yield every step along the levels of `path`, from state x at path[0].

        `levels(schedule(sampler.times(schedule)))` is the sampler's own path. A pair that rises is
        forward noise, q(x_t | x_s), and clears the past, unless the sampler inverts.
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


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode (no dropout), and back into what it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def trajectory(
    model: GaussianDiffusion,
    sampler: Sampler,
    *,
    shape: Sequence[int],
    num_samples: int,
    noise: Noise,
    guidance: Guidance | None = None,
    given: Condition = Condition(),
    x: Tensor | None = None,
    start: float | None = None,
    x0_constraint: X0Constraint | None = None,
    constraint: StateConstraint | None = None,
) -> Iterator[Step]:
    """Sample, yielding every step.

    Args:
        model: What to sample from; its mode (train or eval) is left as it is.
        sampler: How.
        shape: Shape of one sample, e.g. (1, 28, 28).
        num_samples: B, at least 1.
        noise: Where the starting noise and that of the steps comes from.
        guidance: How conditions are used; None asks the model under them as they are.
        given: Conditions of the B samples, on any device.
        x: State to start from at `start`, (B, *shape); the model's prior unless given. Inversion
            needs it: the image.
        start: Time to start at; the schedule's t_max unless given.
        x0_constraint: Applied to every x0-hat after guidance, e.g. clipping.
        constraint: Applied to the state after every step, e.g. inpainting.

    Yields:
        Each `Step`, with tensors of shape (B, *shape) on the model's device.
    """
    if num_samples < 1:
        raise ArgumentError("num_samples", num_samples, "must be at least 1")
    parameter = next(model.parameters(), None)
    like = torch.zeros(0) if parameter is None else parameter
    times = sampler.times(model.schedule, start)
    if x is None and sampler.inverts:
        raise ValueError(f"{type(sampler).__name__} starts from images: give x")
    blank = torch.empty((num_samples, *shape), dtype=like.dtype, device=like.device)
    first = noise.normal(blank) if x is None else x
    path = levels(model.schedule(times))
    x = model.prior(path[0], first) if x is None else x
    denoise = denoiser_of(model, guidance, given.to(x.device), x0_constraint)
    yield from sampler.trajectory(denoise, model.schedule, path, x, noise, constraint)


def sample(
    model: GaussianDiffusion,
    sampler: Sampler,
    *,
    shape: Sequence[int],
    num_samples: int,
    noise: Noise,
    guidance: Guidance | None = None,
    given: Condition = Condition(),
    x: Tensor | None = None,
    start: float | None = None,
    x0_constraint: X0Constraint | None = None,
    constraint: StateConstraint | None = None,
) -> Tensor:
    """The end of `trajectory`, whose arguments these are: (B, *shape) on the model's device."""
    steps = trajectory(
        model,
        sampler,
        shape=shape,
        num_samples=num_samples,
        noise=noise,
        guidance=guidance,
        given=given,
        x=x,
        start=start,
        x0_constraint=x0_constraint,
        constraint=constraint,
    )
    return deque(steps, maxlen=1).pop().x


class SelfConditioned:
    """A self-conditioning model that remembers its last x0-hat through one sampling call.

    Chen et al., "Analog Bits" (arXiv 2208.04202, algorithm 2). Guidance asks for several answers in
    one batch; each gets its own as the next estimate. The first call has none.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.schedule = model, model.schedule
        self.last: Tensor | None = None

    @property
    def num_classes(self) -> int | None:
        """Those of the model."""
        return self.model.num_classes

    def __call__(self, query: Query) -> Denoised:
        """The model's answer, which is its estimate the next time."""
        x, last = query.x, self.last
        if last is not None:
            if len(last) != len(x):  # guidance came or went: the first rows are the conditional's
                last = last[: len(x)].repeat(-(-len(x) // len(last)), *[1] * (x.ndim - 1))
            query = query._replace(given=query.given._replace(estimate=last[: len(x)]))
        denoised = self.model(query)
        self.last = denoised.x0.detach()
        return denoised


def denoiser_of(
    model: GaussianDiffusion,
    guidance: Guidance | None = None,
    given: Condition = Condition(),
    x0_constraint: X0Constraint | None = None,
) -> DenoiseFn:
    """The denoiser that a sampler sees: guidance inside, then the constraint on x0-hat."""
    asked: Model = SelfConditioned(model) if model.self_conditioning else model
    guided: DenoiseFn = asked if guidance is None else guidance(asked)

    def denoise(query: Query) -> Denoised:
        denoised = guided(query._replace(given=given))
        if x0_constraint is None:
            return denoised
        return denoised._replace(x0=x0_constraint(denoised.x0, query.at))

    return denoise
