r"""Runge-Kutta and Adams-Bashforth samplers of the probability flow ODE.

With z = x / c, tau as time, x0-hat and eps-hat = (x_t - alpha x0-hat) / sigma, the ODE of every
Gaussian path reads

    straight frame   c = alpha + sigma, tau = sigma / c         dz/dtau = eps-hat - x0-hat
    VE frame         c = alpha,         tau = sigma / alpha     dz/dtau = eps-hat

(Liu et al., arXiv 2209.03003; Karras et al., arXiv 2206.00364, eq. 1 and 4). The straight frame is
finite where alpha = 0, the VE frame is not. Euler in either is DDIM (see `ancestral`); methods of
higher order differ by the frame.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine, eps_from
from diffusion_lab.diffusion.model import DenoiseFn
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.sampling.sampler import Here, Sampler, Step
from diffusion_lab.sampling.spacing import TimestepSpacing


class Frame(ABC):
    """A change of variables z = x / c over tau that makes the ODE simple."""

    @abstractmethod
    def __call__(self, level: Level) -> tuple[Tensor, Tensor]:
        """(c, tau) at the level; tau rises with the noise."""

    @abstractmethod
    def slope(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """dz/dtau at state x (B, *) with clean estimate x0; sigma > 0."""

    @abstractmethod
    def log_snr(self, tau: Tensor) -> Tensor:
        """Log-SNR of the level that has this tau."""

    def level_at(self, schedule: Schedule, tau: Tensor) -> Level:
        """The schedule's level that has this tau."""
        return schedule(schedule.time_of(self.log_snr(tau)))

    def check(self, schedule: Schedule) -> None:  # noqa: B027 (most frames are finite everywhere)
        """Check that the frame is finite on the schedule (ValueError)."""


class Straight(Frame):
    """c = alpha + sigma, tau = sigma / c in [0, 1]; finite on every schedule."""

    def __call__(self, level: Level) -> tuple[Tensor, Tensor]:
        """(alpha + sigma, sigma / (alpha + sigma))."""
        c = level.alpha + level.sigma
        return c, level.sigma / c

    def slope(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """eps-hat - x0-hat."""
        return combine((1.0, eps_from(x, x0, level)), (-1.0, x0))

    def log_snr(self, tau: Tensor) -> Tensor:
        """2 ln((1 - tau) / tau)."""
        return 2.0 * (torch.log1p(-tau) - tau.log())


class VE(Frame):
    """c = alpha, tau = sigma / alpha, the sigma of Karras et al.; refused where alpha is 0."""

    def __call__(self, level: Level) -> tuple[Tensor, Tensor]:
        """(alpha, sigma / alpha)."""
        return level.alpha, level.sigma / level.alpha

    def slope(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """eps-hat."""
        return eps_from(x, x0, level)

    def log_snr(self, tau: Tensor) -> Tensor:
        """-2 ln tau."""
        return -2.0 * tau.log()

    def check(self, schedule: Schedule) -> None:
        """Check that alpha > 0 (ArgumentError)."""
        if not float(schedule(schedule.t_max).alpha) > 0:
            raise ArgumentError(
                "frame",
                type(self).__name__,
                f"cannot be used with {type(schedule).__name__}, which ends with alpha = 0, where "
                "sigma / alpha is infinite; take the straight frame",
            )


class FrameSampler(Sampler):
    """A sampler that integrates in a frame."""

    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        frame: Frame | None = None,
    ) -> None:
        super().__init__(steps, grid)
        self.frame = Straight() if frame is None else frame

    def check(self, schedule: Schedule) -> None:
        """Check the frame too; see `Sampler.check`."""
        super().check(schedule)
        self.frame.check(schedule)


class RungeKutta(FrameSampler):
    """An explicit Runge-Kutta method, stated by its tableau.

    Each step calls the network once a stage; the last, which ends at sigma = 0, once.
    """

    nodes: tuple[float, ...]
    """Where in the step each stage is evaluated, from 0 to 1."""
    stages: tuple[tuple[float, ...], ...]
    """For each stage after the first, the weights of the slopes before it."""
    weights: tuple[float, ...]
    """Of all slopes, for the step."""

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """All stages, then their weighted mean."""
        x, t = here.x, here.t
        (c_t, tau_t), (c_s, tau_s) = self.frame(t), self.frame(s)
        h = tau_s - tau_t
        level, state, slopes = t, x, list[Tensor]()
        x0 = here.ask(denoise).x0
        for node, row in zip(self.nodes[1:], self.stages, strict=True):
            slopes.append(self.frame.slope(state, x0, level))
            level = s if node == 1 else self.frame.level_at(here.schedule, tau_t + node * h)
            c, _ = self.frame(level)
            state = _advanced(x, c / c_t, c * h, row, slopes)
            x0 = denoise(Query(state, level)).x0
        slopes.append(self.frame.slope(state, x0, level))
        return Step(s, _advanced(x, c_s / c_t, c_s * h, self.weights, slopes), level, state, x0)


def _advanced(
    x: Tensor, scale: Tensor, h: Tensor, weights: Sequence[float], slopes: Sequence[Tensor]
) -> Tensor:
    """scale x + h times the weighted slopes, those of weight 0 left out."""
    terms = [(h * w, slope) for w, slope in zip(weights, slopes, strict=True) if w]
    return combine((scale, x), *terms)


class Midpoint(RungeKutta):
    """The midpoint method: second order, two calls a step."""

    nodes = (0.0, 0.5)
    stages = ((0.5,),)
    weights = (0.0, 1.0)


class RK4(RungeKutta):
    """The classical fourth-order Runge-Kutta method, four calls a step."""

    nodes = (0.0, 0.5, 0.5, 1.0)
    stages = ((0.5,), (0.0, 0.5), (0.0, 0.0, 1.0))
    weights = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class Heun(RungeKutta):
    """Heun's second-order method, with churn (Karras et al., arXiv 2206.00364, algorithm 2).

    Two calls a step and one in the last, which ends at sigma = 0: 2 S - 1. With `frame=VE()` and
    the grid `Karras` it is their sampler; without churn, their algorithm 1. Churn raises the noise
    of a state from sigma to sigma (1 + gamma), gamma = min(churn / S, sqrt(2) - 1), before the
    step, where sigma / alpha lies in [churn_low, churn_high]; never above the schedule's end.
    """

    nodes = (0.0, 1.0)
    stages = ((1.0,),)
    weights = (0.5, 0.5)

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        frame: Frame | None = None,
        churn: NonNegative = 0.0,
        churn_low: float = 0.0,
        churn_high: float | None = None,
        churn_noise: NonNegative = 1.0,
    ) -> None:
        super().__init__(steps, grid, frame)
        if churn_high is not None and not churn_low <= churn_high:
            raise ArgumentError(
                "churn_low", churn_low, f"must not be above churn_high={churn_high}"
            )
        self.churn = churn
        self.churn_range = churn_low, math.inf if churn_high is None else churn_high
        self.churn_noise = churn_noise

    def prepare(self, here: Here) -> Here:
        """Fresh noise where asked for: the state at a noisier level."""
        if not self.churn:
            return here
        ve, t, schedule = VE(), here.t, here.schedule
        _, sigma = ve(t)
        low, high = self.churn_range
        if not low <= float(sigma) <= high:
            return here
        count = self.steps or int((self.times(schedule).diff() < 0).sum())
        gamma = min(self.churn / count, math.sqrt(2) - 1)
        _, most = ve(schedule(schedule.t_max))
        raised = torch.minimum(sigma * (1 + gamma), most)
        if not float(raised) > float(sigma):
            return here
        above = ve.level_at(schedule, raised)
        added = self.churn_noise * (raised**2 - sigma**2).clamp_min(0.0).sqrt()
        fresh = here.noise.normal(here.x)
        x = combine((above.alpha / t.alpha, here.x), (above.alpha * added, fresh))
        return here._replace(x=x, t=above)


class AdamsBashforth(FrameSampler):
    """Adams-Bashforth: order k from the slopes of k steps, one call a step.

    The polynomial through the last slopes is integrated exactly, whatever the step lengths; the
    first steps have lower orders. In the VE frame it is k-diffusion's "LMS".
    """

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        frame: Frame | None = None,
        order: Literal[1, 2, 3, 4] = 2,
    ) -> None:
        super().__init__(steps, grid, frame)
        self.memory = order - 1

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Extrapolate the slope from this step's and the last ones'."""
        x, t = here.x, here.t
        x0 = here.ask(denoise).x0
        (c_t, tau_t), (c_s, tau_s) = self.frame(t), self.frame(s)
        slopes, taus = [self.frame.slope(x, x0, t)], [tau_t]
        for last in here.past:
            slopes.append(self.frame.slope(last.x_t, last.x0, last.t))
            taus.append(self.frame(last.t)[1])
        weights = _integrals(torch.stack(taus) - tau_t, float(tau_s - tau_t))
        terms = [(c_s * w, slope) for w, slope in zip(weights, slopes, strict=True)]
        return Step(s, combine((c_s / c_t, x), *terms), t, x, x0)


def _integrals(nodes: Tensor, end: float) -> Tensor:
    """Weights w with sum w_i f(nodes_i) = integral of f from 0 to `end`, degree < len(nodes)."""
    scaled = nodes / end
    powers = torch.arange(len(nodes), dtype=torch.float64)
    vandermonde = scaled[None, :] ** powers[:, None]
    weights: Tensor = torch.linalg.solve(vandermonde, 1.0 / (powers + 1))
    return end * weights
