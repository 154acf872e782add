"""Sampling from a model: its prior, guidance and constraints, and the loop of a sampler.

Sampling runs under no_grad, not inference_mode, since guidance may need gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import levels
from diffusion_lab.diffusion.model import Denoised, DenoiseFn, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.diffusion.self_conditioning import SelfConditioned
from diffusion_lab.errors import ArgumentError
from diffusion_lab.sampling.constraints import StateConstraint, X0Constraint
from diffusion_lab.sampling.sampler import Sampler, Step


class Model(Protocol):
    """What guidance needs of a model; a `GaussianDiffusion` is one."""

    schedule: Schedule
    num_classes: int | None

    def __call__(self, query: Query) -> Denoised:
        """The model's answer."""
        ...


class Guidance(Protocol):
    """Makes a denoiser of a model by asking it under several conditions."""

    def __call__(self, model: Model) -> DenoiseFn:
        """A map of queries, a fresh closure for each sampling call."""
        ...


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


def final_state(steps: Iterator[Step]) -> Tensor:
    """The samples (B, *shape) that a trajectory ends at."""
    return deque(steps, maxlen=1).pop().x


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
