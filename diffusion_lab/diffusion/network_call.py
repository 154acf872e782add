"""How a model calls its network: the number for the noise level, and conditions by name.

A network of this package has a method `condition_inputs`, which makes (embedding (B, E), extra
channels or None) of (x, c_noise, label) and the conditions by name; it is called with x and these.
A network of another library is called with (x (B, *), c_noise (B,), label (B,) int64 or None) and
the conditions by name, `num_classes` being the label of the null class.

By name come `vector`, `image` and `estimate` where the query has them, and `to`, the c_noise of
where the sampler goes, for a network with `two_times`. One with `self_conditioning` always gets an
`estimate`, its last x0-hat or 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.diffusion.schedules import Schedule


def network_output(network: nn.Module, schedule: Schedule, query: Query, x: Tensor) -> Tensor:
    """The network's output for its input x, which is the query's state as it shall see it."""
    c_noise, named = c_noise_of(schedule, query.at, x), query.given._asdict()
    label = named.pop("label")
    if getattr(network, "self_conditioning", False) and query.given.estimate is None:
        named["estimate"] = torch.zeros_like(x)
    if getattr(network, "two_times", False):
        named["to"] = c_noise if query.to is None else c_noise_of(schedule, query.to, x)
    named = {name: part for name, part in named.items() if part is not None}
    condition_inputs = getattr(network, "condition_inputs", None)
    if condition_inputs is None:
        output: Tensor = network(x, c_noise, label, **named)
    else:
        output = network(x, *condition_inputs(x, c_noise, label, **named))
    return output.to(x.dtype)


def c_noise_of(schedule: Schedule, level: Level, x: Tensor) -> Tensor:
    """The network's number for a level, (B,): float32, or float64 where x is.

    Where it is not finite, as ln sigma at sigma = 0, that of the cleanest trained level.
    """
    number = schedule.conditioning(level)
    if not level.sigma.all():
        cleanest = schedule.conditioning(schedule(schedule.t_min))
        number = torch.where(number.isfinite(), number, cleanest)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return number.to(x.device, dtype).expand(len(x))
