r"""Runge-Kutta and Adams-Bashforth samplers of the probability flow ODE.

The ODE is integrated as z = x / c over tau in the straight frame, c = alpha + sigma and
tau = sigma / (alpha + sigma), where it reads (Liu et al., arXiv 2209.03003; the flow of any
Gaussian path after rescaling)

    dz/dtau = eps-hat - x0-hat,

and which is finite where alpha = 0. Euler in this frame is DDIM (see `ancestral`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, combine, eps_from
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.sampling.sampler import DenoiseFn, Sampler, Step


def straight_frame(level: Level) -> tuple[Tensor, Tensor]:
    """(c, tau) of the straight frame: z = x / c, tau in [0, 1]."""
    c = level.alpha + level.sigma
    return c, level.sigma / c


def velocity(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """dz/dtau = eps-hat - x0-hat; sigma > 0."""
    return combine((1.0, eps_from(x, x0, level)), (-1.0, x0))


class Heun(Sampler):
    """Heun's second-order method (Karras et al., arXiv 2206.00364, algorithm 1, no churn).

    Two evaluations a step and one in the last, which ends at sigma = 0: 2 S - 1 calls.
    """

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
        """Euler, then the mean of both slopes."""
        x0 = denoise(x, t).x0
        (c_t, tau_t), (c_s, tau_s) = straight_frame(t), straight_frame(s)
        slope = velocity(x, x0, t)
        h = c_s * (tau_s - tau_t)
        euler = combine((c_s / c_t, x), (h, slope))
        end = denoise(euler, s).x0
        x_s = combine((c_s / c_t, x), (h / 2, slope), (h / 2, velocity(euler, end, s)))
        return Step(s, x_s, s, euler, end)


class AdamsBashforth(Sampler):
    """Two-step Adams-Bashforth: second order at one evaluation a step.

    Weights follow from the step lengths h and h' (the one before): 1 + h/(2h') and -h/(2h'). The
    first step is Euler's.
    """

    memory = 1

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
        """Extrapolate the slope from this step's and the last one's."""
        x0 = denoise(x, t).x0
        (c_t, tau_t), (c_s, tau_s) = straight_frame(t), straight_frame(s)
        h = tau_s - tau_t
        slope = velocity(x, x0, t)
        if not past:
            return Step(s, combine((c_s / c_t, x), (c_s * h, slope)), t, x, x0)
        last = past[-1]
        ratio = h / (2 * (tau_t - straight_frame(last.t)[1]))
        older = velocity(last.x_t, last.x0, last.t)
        x_s = combine((c_s / c_t, x), (c_s * h * (1 + ratio), slope), (-c_s * h * ratio, older))
        return Step(s, x_s, t, x, x0)
