r"""Exponential integrators: DPM-Solver++ and UniPC.

In lambda = ln(alpha / sigma) the probability flow ODE has an exact solution up to an integral of
x0-hat (Lu et al., arXiv 2211.01095, eq. 8): over a step of length h = lambda_s - lambda_t,

    x_s = (sigma_s / sigma_t) x_t + alpha_s integral of e^(lambda - lambda_s) x0-hat dlambda,

and the solvers differ in the polynomial that stands for x0-hat. At alpha_t = 0, h is infinite: the
first step is then that of DDIM, which is the limit, and so finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, combine, eps_from, marginal
from diffusion_lab.diffusion.model import DenoiseFn
from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.sampling.sampler import Here, Sampler, Step
from diffusion_lab.sampling.spacing import TimestepSpacing


def _lambda(level: Level) -> float:
    """ln(alpha / sigma); -inf at alpha = 0."""
    return 0.5 * float(level.log_snr)


def _usable(past: Sequence[Step]) -> list[Step]:
    """Past steps at a finite lambda."""
    return [step for step in past if math.isfinite(_lambda(step.t))]


class DPMSolver2S(Sampler):
    """DPM-Solver++(2S): second order from a second call at the middle of each step in lambda.

    Lu et al. (arXiv 2211.01095, algorithm 1 with r = 1/2). A step from alpha = 0 has no middle and
    is DDIM's.
    """

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """x0-hat at the middle stands for the whole step."""
        x, t, schedule = here.x, here.t, here.schedule
        x0 = here.ask(denoise).x0
        h = _lambda(s) - _lambda(t)
        if math.isinf(h):
            return Step(s, _ddim(x, x0, t, s), t, x, x0)
        log_snr = torch.tensor(2 * _lambda(t) + h, dtype=torch.float64)
        middle = schedule(schedule.time_of(log_snr))
        state = _ddim(x, x0, t, middle)
        x0 = denoise(Query(state, middle)).x0
        return Step(s, _ddim(x, x0, t, s), middle, state, x0)


def _ddim(x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """The exact solution for a constant x0-hat, which is DDIM."""
    return marginal(x0, eps_from(x, x0, t), s)


class DPMSolverMultistep(Sampler):
    r"""DPM-Solver++ from the last `order` estimates, one call a step; with eta > 0 its SDE.

    For the SDE with eta times DDPM's noise, h becomes (1 + eta) h in the integral, the state
    decays by a further e^(-eta h) and sigma_s sqrt(1 - e^(-2 eta h)) z is added (k-diffusion's
    2M SDE and 3M SDE; at order 1 this is DDIM with its eta for eta = 0 and 1).

    Order 2 with `midpoint` is 2M of the paper (algorithm 2); `heun` weighs the slope by the exact
    integral. Order 3 always takes the exact integrals 1 + (e^-h - 1) / h of theta and
    1 - 2 (1 + (e^-h - 1) / h) / h of theta^2, theta in [0, 1] the share of the step; the paper's
    code, k-diffusion and diffusers give the latter half its weight, which makes theirs order 2.
    """

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        order: Literal[1, 2, 3] = 2,
        eta: NonNegative = 0.0,
        rule: Literal["midpoint", "heun"] = "midpoint",
    ) -> None:
        super().__init__(steps, grid)
        self.memory = order - 1
        self.eta = eta
        self.rule = rule

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Extrapolate x0-hat in lambda, integrate it exactly, add noise."""
        x, t = here.x, here.t
        x0 = here.ask(denoise).x0
        h = _lambda(s) - _lambda(t)
        decay = self.eta * h if self.eta else 0.0
        whole = h + decay
        terms = [
            (s.sigma / t.sigma * math.exp(-decay), x),
            (-s.alpha * math.expm1(-whole), x0),
            *((s.alpha * c, d) for c, d in self._slopes(x0, t, h, whole, here.past)),
        ]
        if self.eta:
            terms.append((s.sigma * math.sqrt(-math.expm1(-2 * decay)), here.noise.normal(x)))
        return Step(s, combine(*terms), t, x, x0)

    def _slopes(
        self, x0: Tensor, t: Level, h: float, whole: float, past: Sequence[Step]
    ) -> list[tuple[float, Tensor]]:
        """(weight, difference of estimates) of the first and second derivative of x0-hat."""
        usable = _usable(past)
        if not usable:
            return []
        last = usable[-1]
        r0 = (_lambda(t) - _lambda(last.t)) / h
        d0 = combine((1 / r0, x0), (-1 / r0, last.x0))
        phi2 = math.expm1(-whole) / whole + 1
        if len(usable) == 1 or self.memory == 1:
            half = -0.5 * math.expm1(-whole)
            exact = self.memory == 2 or self.rule == "heun"
            return [(phi2 if exact else half, d0)]
        older = usable[-2]
        r1 = (_lambda(last.t) - _lambda(older.t)) / h
        d1 = combine((1 / r1, last.x0), (-1 / r1, older.x0))
        second = combine((1 / (r0 + r1), d0), (-1 / (r0 + r1), d1))
        first = combine((1.0, d0), (r0, second))
        return [(phi2, first), (1 - 2 * phi2 / whole, second)]


class UniPC(Sampler):
    r"""A predictor and a corrector of order `order` that share one call a step.

    Zhao et al., "UniPC" (arXiv 2302.04867, algorithms 5 to 8, data prediction). The estimate at t
    first corrects the state there, which the step before had predicted, then predicts the next.
    The corrector raises the order by one.
    """

    @checked
    def __init__(
        self,
        steps: int | None = None,
        grid: TimestepSpacing | None = None,
        order: Literal[1, 2, 3] = 2,
        variant: Literal["bh1", "bh2"] = "bh2",
    ) -> None:
        super().__init__(steps, grid)
        self.memory = order
        self.variant = variant

    def step(self, denoise: DenoiseFn, here: Here, s: Level) -> Step:
        """Correct the state at t, then predict the one at s."""
        x, t = here.x, here.t
        x0 = here.ask(denoise).x0
        usable = _usable(here.past)
        if usable:
            x = self._integrated(usable[-1], t, usable[:-1], x0)
        start, older = Step(t, x, t, x, x0), usable[len(usable) - self.memory + 1 :]
        return Step(s, self._integrated(start, s, older), t, x, x0)

    def _integrated(
        self, start: Step, s: Level, older: Sequence[Step], end_x0: Tensor | None = None
    ) -> Tensor:
        """The state at s from start.x_t at start.t; `end_x0` at s makes it the corrector."""
        h = _lambda(s) - _lambda(start.t)
        moved = _ddim(start.x_t, start.x0, start.t, s)
        if math.isinf(h):
            return moved
        known = [((_lambda(p.t) - _lambda(start.t)) / h, p.x0) for p in reversed(older)]
        if end_x0 is not None:
            known.append((1.0, end_x0))
        if not known:
            return moved
        b = -h if self.variant == "bh1" else math.expm1(-h)
        weights = _weights([r for r, _ in known], h, b)
        terms = [
            (-s.alpha * b * w / r, combine((1.0, x0), (-1.0, start.x0)))
            for w, (r, x0) in zip(weights, known, strict=True)
        ]
        return combine((1.0, moved), *terms)


def _weights(rs: list[float], h: float, b: float) -> list[float]:
    """Weights of (x0(r) - x0(0)) / r: order conditions of Zhao et al., eq. 11.

    With one difference the paper takes 1/2, exact as h -> 0, in place of the solution.
    """
    if len(rs) == 1:
        return [0.5]
    phi, factorial, right = math.expm1(-h) / -h - 1, 1.0, []
    for k in range(1, len(rs) + 1):
        right.append(phi * factorial / b)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    rows = [[r**k for r in rs] for k in range(len(rs))]
    solved = torch.linalg.solve(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    )
    return [float(weight) for weight in solved]
