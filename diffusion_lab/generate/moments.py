"""The moments of sampling that a strip or a film shows."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.generate.initial_state import Start
from diffusion_lab.generate.model import Generates
from diffusion_lab.spread import spread


def moments(
    model: Generates,
    given: Condition,
    count: int,
    seed: int,
    size: int,
    number: int,
    start: Start | None = None,
) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """t, x_t and x0-hat, each (count, *shape), at `number` steps spread over every trajectory."""
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
    return at, [torch.cat(parts) for parts in states], [torch.cat(p) for p in estimates]
