r"""The likelihood of data under the probability flow ODE (Song et al., arXiv 2011.13456, D.2).

In a frame (see `ode`) z = x / c moves by dz/dtau = f(z, tau), and its log density by

    d log p(z(tau)) / dtau = -div f,

so that with x = alpha x0 at the cleanest level 0, the noisiest level T and d dimensions

    -log p(x0) = -log p_T(x_T) - d ln(c_T / c_0) - d ln alpha_0 - integral of div f over tau.

What is scored is the density of x_0 / alpha_0 = x0 + (sigma_0 / alpha_0) eps, the data with the
little noise of the cleanest level. The divergence is a trace: exact for few dimensions, else
estimated without bias from random vectors (Hutchinson). Everything is per dimension, in nats.

The state, with the integral of the divergence beside it, is moved by the samplers of `ode` and
`adaptive`, which walk down: in -tau the way up is down. `bound` has the variational bound.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lab.diffusion.bound import BIN, normal_log_density
from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine, levels
from diffusion_lab.diffusion.model import Denoised, DenoiseFn, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Count, checked
from diffusion_lab.sampling.ode import RK4, Frame, FrameSampler, Straight
from diffusion_lab.sampling.sampler import Here

GREY_OFFSET = -math.log(BIN)
"""Nats per dimension from the density of dequantised images to the probability of grey values:
ln(255 / 2), 6.994 bits. (Song et al. scale grey values to 2 / 256 of [-1, 1]: 7 bits.)"""

EXACT_DIMENSIONS = 16
"""Up to which the trace of the divergence is taken exactly where nothing else is asked for."""


class Divergence(ABC):
    """Trace of the Jacobian of a slope, image by image."""

    @abstractmethod
    def __call__(self, slope: Tensor, z: Tensor) -> Tensor:
        """Trace (B,) of d slope / dz; slope (B, d) was computed from z (B, d), row by row."""


class ExactDivergence(Divergence):
    """One derivative a dimension."""

    def __call__(self, slope: Tensor, z: Tensor) -> Tensor:
        """Sum of the diagonal."""
        diagonal = [
            torch.autograd.grad(slope[:, i].sum(), z, retain_graph=True)[0][:, i]
            for i in range(slope.shape[1])
        ]
        return torch.stack(diagonal, dim=1).sum(1)


class Hutchinson(Divergence):
    """Mean of v^T J v over random signs v (Hutchinson 1990), which has the trace as expectation.

    The signs stay the same along the whole path, so that what is integrated is smooth. Each of the
    `probes` vectors an image costs one derivative.
    """

    @checked
    def __init__(self, like: Tensor, noise: Noise, probes: Count = 1) -> None:
        drawn = [noise.normal(like).flatten(1) for _ in range(probes)]
        self.signs = [torch.where(v < 0, -torch.ones_like(v), torch.ones_like(v)) for v in drawn]

    def __call__(self, slope: Tensor, z: Tensor) -> Tensor:
        """Mean over the vectors."""
        products = [
            (torch.autograd.grad(slope, z, grad_outputs=v, retain_graph=True)[0] * v).sum(1)
            for v in self.signs
        ]
        return torch.stack(products).mean(0)


class _Ascent(Frame):
    """A frame over -tau, of a state that is not x but z itself and one number more (c = 1)."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def __call__(self, level: Level) -> tuple[Tensor, Tensor]:
        """(1, -tau)."""
        return torch.ones_like(level.alpha), -self.frame(level)[1]

    def slope(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """Minus the slope over tau, which stands in the place of x0-hat."""
        return -x0

    def log_snr(self, tau: Tensor) -> Tensor:
        """That of the frame at -tau."""
        return self.frame.log_snr(-tau)


def flow_path(schedule: Schedule, steps: int, margin: float = 1e-2) -> list[Level]:
    """The `steps` + 1 levels that the ODE is integrated over, evenly in log-SNR, t_max to t_min.

    They lie between the nodes too where the schedule is discrete. Where alpha = 0 at t_max, the
    first interval has the length `margin` in t, and there are at least 2 (else 1; ArgumentError).
    """
    start, first = schedule.t_max, list[Tensor]()
    if not float(schedule(start).alpha) > 0:
        first, start, steps = [torch.tensor([start]).double()], start - margin, steps - 1
    if steps < 1:
        raise ArgumentError("steps", steps + len(first), f"must be at least {1 + len(first)}")
    ends = schedule(torch.tensor([start, schedule.t_min], dtype=torch.float64)).log_snr
    even = torch.linspace(float(ends[0]), float(ends[1]), steps + 1, dtype=torch.float64)
    times = schedule.time_of(even)
    times[0], times[-1] = start, schedule.t_min
    return levels(schedule(torch.cat((*first, times))))


def flow_terms(
    denoise: DenoiseFn,
    schedule: Schedule,
    x0: Tensor,
    path: Sequence[Level],
    noise: Noise,
    *,
    prior: tuple[float | Tensor, float | Tensor] = (0.0, 1.0),
    frame: Frame | None = None,
    solver: Callable[..., FrameSampler] = RK4,
    divergence: Divergence | None = None,
) -> Tensor:
    """-log p(x0) under the probability flow ODE, split by the levels of a path.

    Args:
        denoise: The model, its conditions inside; its x0 must be differentiable in x_t.
        schedule: Of the model.
        x0: Data (B, *), as real numbers (see `dequantised`).
        path: Levels of shape (), from noise to data, all of sigma > 0; see `flow_path`.
        noise: Handed to the solver, and to the divergence where there is none.
        prior: Mean and standard deviation of p_T at path[0], numbers or tensors that meet x0.
        frame: The variables of the ODE; `Straight()` (None) or `VE()`.
        solver: `RK4` (one step an interval), or another `FrameSampler` given a frame, such as
            `partial(Adaptive, rtol=1e-4, atol=1e-4)`.
        divergence: None is exact up to 16 dimensions and one Hutchinson vector above.

    Returns:
        Nats per dimension, (B, S + 1): -log p_T(x_T), then the change of volume in each of the S
        intervals from noise to data. Their sum is -log p(x0) / d.
    """
    frame = Straight() if frame is None else frame
    frame.check(schedule)
    if divergence is None:
        few = x0[0].numel() <= EXACT_DIMENSIONS
        divergence = ExactDivergence() if few else Hutchinson(x0, noise)
    moving = solver(frame=_Ascent(frame))
    shape, root = x0.shape[1:], math.sqrt(x0[0].numel())
    slope = _augmented(denoise, frame, divergence, shape)
    rising = list(reversed(path))
    begin = rising[0]
    z = combine((begin.alpha / frame(begin)[0], x0)).flatten(1)
    y = torch.cat((z, torch.zeros_like(z[:, :1])), dim=1)
    changes: list[Tensor] = []
    with torch.no_grad():
        for low, high in pairwise(rising):
            before = y[:, -1]
            y = moving.step(slope, Here(y, low, (), schedule, noise), high).x
            stretch = math.log(float(frame(high)[0] / frame(low)[0]))
            changes.append((before - y[:, -1]) / root - stretch)
        changes[0] = changes[0] - math.log(float(begin.alpha))
        x = combine((frame(path[0])[0], y[:, :-1])).reshape(-1, *shape)
        mean, std = (torch.zeros_like(x) + part for part in prior)
        terminal = -normal_log_density(x, mean, 2 * std.log()).flatten(1).mean(1)
    return torch.stack((terminal, *reversed(changes)), dim=1)


def _augmented(
    denoise: DenoiseFn, frame: Frame, divergence: Divergence, shape: Sequence[int]
) -> DenoiseFn:
    """Gives dy/dtau in the place of x0, of y = (z, integral of the divergence / sqrt(d)).

    So scaled, an adaptive solver's error of the integral counts as that of nats per dimension does.
    """

    def slope(query: Query) -> Denoised:
        level = query.at
        with torch.enable_grad():
            z = query.x[:, :-1].detach().requires_grad_()
            x = combine((frame(level)[0], z)).reshape(-1, *shape)
            moved = frame.slope(x, denoise(Query(x, level)).x0, level).flatten(1)
            trace = divergence(moved, z)
        grown = trace[:, None] / math.sqrt(z.shape[1])
        return Denoised(torch.cat((moved, grown), dim=1).detach())

    return slope


def dequantised(x0: Tensor, noise: Noise) -> Tensor:
    """Grey values x0 (B, *) spread evenly over their bins: uniform dequantisation.

    The mean of -log p of such images over the noise, plus `GREY_OFFSET`, is at least -log of the
    probability of the grey values (Theis et al., arXiv 1511.01844, section 3.1).
    """
    uniform: Tensor = torch.special.ndtr(noise.normal(x0))
    return x0 + BIN * (uniform - 0.5)


def prior_moments(model: GaussianDiffusion, level: Level, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (1, *) of the model's prior at a level, for images (B, *)."""
    one = torch.ones_like(like[:1])
    mean = model.prior(level, torch.zeros_like(one))
    return mean, model.prior(level, one) - mean
