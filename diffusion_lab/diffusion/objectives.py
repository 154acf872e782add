r"""Training objectives: which t, which weight, which error, which pairing.

The loss of one image is  weight(t) * mean over its pixels of error(F, F*),  with t drawn by the
time law (`times`), eps ~ N(0, I) paired with x0 by the coupling (`couplings`) and
x_t = alpha x0 + sigma eps. Weights and errors are in `weights`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.diffusion.bound import bound_term
from diffusion_lab.diffusion.couplings import Coupling, Independent
from diffusion_lab.diffusion.gaussian import Level, combine, marginal
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.diffusion.times import TimeLaw
from diffusion_lab.diffusion.weights import (
    AbsoluteError,
    ConstantWeight,
    HuberError,
    SquaredError,
    Weight,
)


class Objective:
    """A training loss: time law, weight, error and coupling.

    Args:
        time: Which times are trained.
        weight: How much each counts.
        error: Elementwise error of the network's output, e.g. `SquaredError()`.
        coupling: Which noise meets which image; None is independent.
        bound_weight: Factor >= 0 on the variational bound (bits per dimension, all T steps), which
            is what trains a learned variance; its mean is held fixed there. 0.001 is L_hybrid of
            Nichol & Dhariwal (arXiv 2102.09672, section 3.1).
        estimate_share: Share of images in [0, 1] that a self-conditioning network is trained on
            with an estimate of its own; the paper's 0.5.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self,
        time: TimeLaw,
        weight: Weight,
        error: SquaredError | AbsoluteError | HuberError,
        coupling: Coupling | None = None,
        bound_weight: float = 0.0,
        estimate_share: float = 0.5,
    ) -> None:
        if not bound_weight >= 0:
            raise ValueError(f"objective.bound_weight={bound_weight} must be at least 0")
        if not 0 <= estimate_share <= 1:
            raise ValueError(f"objective.estimate_share={estimate_share} must lie in [0, 1]")
        self.time = time
        self.weight = weight
        self.error = error
        self.coupling = Independent() if coupling is None else coupling
        self.bound_weight = bound_weight
        self.estimate_share = estimate_share

    def __call__(
        self,
        model: GaussianDiffusion,
        x0: Tensor,
        noise: Noise,
        label: Tensor | None = None,
        **cond: Tensor,
    ) -> Tensor:
        """Loss of each image, shape (B,), for x0 (B, *)."""
        schedule = model.schedule
        t = self.time(schedule, noise, len(x0))
        level = schedule(t)
        eps = self.coupling(x0, noise.normal(x0), label)
        x_t = marginal(x0, eps, level)
        if model.self_conditioning:
            cond["estimate"] = self._estimate(model, x_t, level, noise, label, **cond)
        loss = self.loss(model, x0, eps, x_t, level, model(x_t, level, label, **cond))
        importance = self.time.importance(schedule, t)
        if model.training:
            self.time.observe(schedule, t, loss)
        return loss if importance is None else combine((importance, loss))

    def loss(
        self,
        model: GaussianDiffusion,
        x0: Tensor,
        eps: Tensor,
        x_t: Tensor,
        level: Level,
        denoised: Denoised,
    ) -> Tensor:
        """Loss of each image, (B,), given the model's answer at x_t (B, *)."""
        assert denoised.raw is not None
        error = self.error(denoised.raw, model.target(x0, eps, level)).flatten(1).mean(1)
        loss = combine((self.weight.on_target(level, model.parameterization), error))
        if not self.bound_weight:
            return loss
        fixed = denoised._replace(x0=denoised.x0.detach())
        bits = all_steps(model.schedule, x0, x_t, level, fixed, None)
        return loss + self.bound_weight * bits

    def _estimate(
        self,
        model: GaussianDiffusion,
        x_t: Tensor,
        level: Level,
        noise: Noise,
        label: Tensor | None,
        **cond: Tensor,
    ) -> Tensor:
        """The model's own x0-hat for a share of the images and 0 for the rest, no gradient."""
        with torch.no_grad():
            first = model(x_t, level, label, estimate=torch.zeros_like(x_t), **cond).x0
        told = noise.uniform(len(x_t)) < self.estimate_share
        return combine((told.double(), first))

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that cannot be trained so.

        Raises:
            ValueError: a bound in continuous time, or what the time law refuses.
        """
        if self.bound_weight and schedule.steps is None:
            raise ValueError(
                "objective: the variational bound adds up discrete steps; set schedule.steps, e.g. "
                "1000, or objective.bound_weight=0"
            )
        self.time.check(schedule)

    def state_dict(self) -> dict[str, Any]:
        """What the time law learned."""
        return self.time.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self.time.load_state_dict(state)


class VariationalBound(Objective):
    """The full variational bound in bits per dimension, one step drawn at a time.

    Ho et al. (arXiv 2006.11239, eq. 5) without the prior's term, which has nothing to learn. Its
    terms differ by orders of magnitude: `ImportanceTime` was made for it.

    Args:
        time: Which steps are trained; their probability is made up for only by `ImportanceTime`.
        variance_fraction: Of the reverse steps: 0 small, 1 large, None learned by the network.
        coupling: Which noise meets which image; None is independent.
        estimate_share: See `Objective`.
    """

    def __init__(
        self,
        time: TimeLaw,
        variance_fraction: float | None = 1.0,
        coupling: Coupling | None = None,
        estimate_share: float = 0.5,
    ) -> None:
        super().__init__(time, ConstantWeight(), SquaredError(), coupling, 1.0, estimate_share)
        self.variance_fraction = variance_fraction

    def loss(
        self,
        model: GaussianDiffusion,
        x0: Tensor,
        eps: Tensor,
        x_t: Tensor,
        level: Level,
        denoised: Denoised,
    ) -> Tensor:
        """T times the term of each image's step, bits per dimension, (B,)."""
        return all_steps(model.schedule, x0, x_t, level, denoised, self.variance_fraction)


def all_steps(
    schedule: Schedule,
    x0: Tensor,
    x_t: Tensor,
    level: Level,
    denoised: Denoised,
    fraction: float | None,
) -> Tensor:
    """T times the bound's term at each image's own step, bits per dimension, (B,)."""
    assert schedule.steps is not None, "`check` refuses continuous time"
    below = schedule((level.t - 1.0 / schedule.steps).clamp_min(0.0))
    terms = bound_term(x0, x_t, below, level, denoised, fraction)
    return terms * (schedule.steps / math.log(2))
