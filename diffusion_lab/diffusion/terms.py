r"""Terms of a loss: what is asked of a model's answer at one noised batch.

Terms look at the same draw and the same answer, so they add up (`Sum`): L_hybrid of Nichol &
Dhariwal (arXiv 2102.09672, section 3.1) is the regression plus 0.001 times the bound. They are
modules, since a term may have parameters; `objectives` draws times and noise for them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from diffusion_lab.diffusion.bound import bound_term
from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.diffusion.weights import AbsoluteError, HuberError, SquaredError, Weight
from diffusion_lab.errors import ArgumentError

Error = SquaredError | AbsoluteError | HuberError


class Noised(NamedTuple):
    """Images x0 (B, *), noise eps, x_t = alpha x0 + sigma eps at levels (B,), the answer there."""

    x0: Tensor
    eps: Tensor
    x_t: Tensor
    level: Level
    denoised: Denoised


class Term(nn.Module, ABC):
    """A loss of each image at its noised state."""

    @abstractmethod
    def forward(self, model: GaussianDiffusion, noised: Noised) -> Tensor:
        """Loss of each image, (B,)."""

    def check(self, schedule: Schedule) -> None:
        """Check that the term is defined on the schedule (ValueError)."""


class RegressionTerm(Term):
    """weight(level) * mean over the numbers of an image of error(F, F*)."""

    def __init__(self, weight: Weight, error: Error) -> None:
        super().__init__()
        self.weight, self.error = weight, error

    def forward(self, model: GaussianDiffusion, noised: Noised) -> Tensor:
        """See the class."""
        x0, eps, _, level, denoised = noised
        assert denoised.raw is not None
        error = self.error(denoised.raw, model.target(x0, eps, level)).flatten(1).mean(1)
        return combine((self.weight.on_target(level, model.parameterization), error))


class BoundTerm(Term):
    """T times the variational bound's term of the step that ends at the level, bits per dimension.

    `variance_fraction` of the reverse steps is 0 small, 1 large, None learned by the network. With
    `fixed_mean` the variance alone is trained: no gradient reaches x0-hat.
    """

    def __init__(self, variance_fraction: float | None = None, fixed_mean: bool = False) -> None:
        super().__init__()
        self.variance_fraction, self.fixed_mean = variance_fraction, fixed_mean

    def forward(self, model: GaussianDiffusion, noised: Noised) -> Tensor:
        """See the class."""
        schedule, denoised = model.schedule, noised.denoised
        assert schedule.steps is not None, "`check` refuses continuous time"
        if self.fixed_mean:
            denoised = denoised._replace(x0=denoised.x0.detach())
        below = schedule((noised.level.t - 1.0 / schedule.steps).clamp_min(0.0))
        fraction = self.variance_fraction
        terms = bound_term(noised.x0, noised.x_t, below, noised.level, denoised, fraction)
        return terms * (schedule.steps / math.log(2))

    def check(self, schedule: Schedule) -> None:
        """Check that time is discrete, so that steps add up (ValueError)."""
        if schedule.steps is None:
            raise ValueError(
                "the variational bound adds up discrete steps: give the schedule some, e.g. "
                "steps=1000, or leave the bound out (bound_weight=0)"
            )


class Sum(Term):
    """Terms, at least one, each times its factor; None is 1 for all."""

    def __init__(self, terms: Sequence[Term], factors: Sequence[float] | None = None) -> None:
        super().__init__()
        if not terms:
            raise ArgumentError("terms", [], "must be at least one term")
        factors = [1.0] * len(terms) if factors is None else list(factors)
        if len(factors) != len(terms):
            raise ArgumentError("factors", factors, f"must be {len(terms)}, one for each term")
        self.terms, self.factors = nn.ModuleList(terms), factors

    def forward(self, model: GaussianDiffusion, noised: Noised) -> Tensor:
        """See the class."""
        parts = [
            factor * term(model, noised)
            for term, factor in zip(self.terms, self.factors, strict=True)
        ]
        total: Tensor = sum(parts[1:], parts[0])
        return total

    def check(self, schedule: Schedule) -> None:
        """Check each of the terms (ValueError)."""
        for term in self.terms:
            assert isinstance(term, Term)
            term.check(schedule)
