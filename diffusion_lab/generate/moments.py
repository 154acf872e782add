"""The moments of sampling that a strip or a film shows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.generate.multi_device import Request
from diffusion_lab.generate.trained_model import Generates
from diffusion_lab.spread import spread


class Moments(NamedTuple):
    """Some steps of every trajectory, in the order of sampling.

    Attributes:
        times: t of each.
        states: x_t of each, (N, *shape), float32 on the CPU.
        estimates: x0-hat of each, the same.
    """

    times: list[float]
    states: list[Tensor]
    estimates: list[Tensor]


def moments(model: Generates, request: Request, number: int) -> Moments:
    """What a request's samples went through, at `number` steps spread over every trajectory."""
    count, given, seed, size, start = request
    sampler = model.drawing.sampler
    if sampler is None:
        raise ValueError("sampler=None: this model has no sampler of its own; give one")
    begin = None if start is None else start.time
    times = sampler.times(model.diffusion.schedule, begin)
    # Only what is shown is kept: all of 1,000 steps of 100 images would be 600 MB. A pair of times
    # that rises is forward noise and yields no step.
    picked = spread(int((times[1:] < times[:-1]).sum()), number)
    at: list[float] = []
    states: list[list[Tensor]] = [[] for _ in picked]
    estimates: list[list[Tensor]] = [[] for _ in picked]
    for first in range(0, count, size):
        n = min(size, count - first)
        chosen = given.rows(slice(first + n))
        at = []
        steps = model.drawing.trajectory(model.diffusion, n, chosen, seed, first, start)
        for k, step in enumerate(steps):
            if k in picked:
                states[len(at)].append(step.x_t.float().cpu())
                estimates[len(at)].append(step.x0.float().cpu())
                at.append(float(step.t.t.mean()))
    return Moments(at, [torch.cat(p) for p in states], [torch.cat(p) for p in estimates])
