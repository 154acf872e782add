"""How likely a model finds data, in parts: the variational bound and the probability flow ODE.

A `Score` turns images into terms (see `diffusion.bound` and `sampling.likelihood`); `terms_of`
takes it through a data set, and `class_scores` asks it of every class (Li et al., "Your Diffusion
Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203, with the bound's own weights in place
of their equal ones). `likelihood_summary` adds the terms up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from diffusion_lab.diffusion.bound import Variance, bound_terms, bounds_by_end
from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.gaussian import Level
from diffusion_lab.diffusion.model import DenoiseFn, GaussianDiffusion
from diffusion_lab.diffusion.noise import Noise
from diffusion_lab.sampling.adaptive import TooManyCallsError
from diffusion_lab.sampling.ode import FrameSampler
from diffusion_lab.sampling.ode_likelihood import (
    GREY_OFFSET,
    ExactDivergence,
    Hutchinson,
    dequantised,
    flow_terms,
    prior_moments,
)
from diffusion_lab.sampling.sample_noise import SampleNoise


class Score(Protocol):
    """Minus the log likelihood of images, in parts."""

    @property
    def path(self) -> Sequence[Level]:
        """Levels from noise to data; the parts after the first belong to its intervals."""
        ...

    @property
    def grey(self) -> bool:
        """Whether images hold grey values of 8 bits; then results are in bits, else in nats."""
        ...

    @property
    def offset(self) -> float:
        """Added to the sum of the parts, nats per dimension."""
        ...

    @property
    def calls(self) -> int:
        """Network calls an image."""
        ...

    def __call__(self, x0: Tensor, label: Tensor | None, noise: Noise) -> Tensor:
        """Parts (B, S + 1) of images (B, *), nats per dimension: the prior's, then by interval."""
        ...


@dataclass(frozen=True)
class BoundScore:
    """The variational bound; its last part is the reconstruction.

    Attributes:
        model: In eval mode.
        path: Levels from the noisiest to sigma = 0.
        variance: Of the reverse steps.
        grey: See `Score`.
        draws: Of noise, for each image and step.
    """

    model: GaussianDiffusion
    path: Sequence[Level]
    variance: Variance
    grey: bool
    draws: int = 1
    offset: float = 0.0

    @property
    def calls(self) -> int:
        """One a step and draw."""
        return self.draws * (len(self.path) - 1)

    @torch.no_grad()
    def __call__(self, x0: Tensor, label: Tensor | None, noise: Noise) -> Tensor:
        """See `Score`."""
        parts = (_alone(self.model, label), x0, self.path, noise, self.variance)
        prior = prior_moments(self.model, self.path[0], x0)
        return _mean(self.draws, lambda: bound_terms(*parts, grey=self.grey, prior=prior))

    @torch.no_grad()
    def tightest(self, x0: Tensor, label: Tensor | None, noise: Noise) -> BoundScore:
        """This score with the path ended where the mean bound of images (B, *) is the lowest.

        They should not be those that are then scored.
        """
        parts = (_alone(self.model, label), x0, self.path, noise, self.variance)
        prior = prior_moments(self.model, self.path[0], x0)
        bounds = bounds_by_end(*parts, grey=self.grey, prior=prior).double().mean(0)
        return self.ended(float(self.path[int(bounds.argmin())].t))

    def ended(self, end: float) -> BoundScore:
        """This score without the levels between t = `end` and 0; the first is always kept."""
        kept = [level for level in self.path[1:-1] if level.t >= end]
        return replace(self, path=[self.path[0], *kept, self.path[-1]])


@dataclass(frozen=True)
class FlowScore:
    """The probability flow ODE; grey values are dequantised.

    Attributes:
        model: In eval mode, without gradients of its parameters.
        path: Levels from the noisiest to the cleanest trained.
        solver: See `sampling.likelihood.flow_terms`.
        grey: See `Score`.
        draws: Of the dequantisation and of the probes, for each image.
        probes: Vectors that estimate the divergence; None takes it exactly.
        stages: Network calls of the solver in an interval.
    """

    model: GaussianDiffusion
    path: Sequence[Level]
    solver: Callable[..., FrameSampler]
    grey: bool
    draws: int = 1
    probes: int | None = 1
    stages: int = 4

    @property
    def offset(self) -> float:
        """From the density to the probability of grey values."""
        return GREY_OFFSET if self.grey else 0.0

    @property
    def calls(self) -> int:
        """Of the network; each is followed by derivatives."""
        return self.draws * (len(self.path) - 1) * self.stages

    def __call__(self, x0: Tensor, label: Tensor | None, noise: Noise) -> Tensor:
        """See `Score`."""
        prior = prior_moments(self.model, self.path[0], x0)
        denoise = _alone(self.model, label)

        def once() -> Tensor:
            x = dequantised(x0, noise) if self.grey else x0
            exact = self.probes is None
            trace = ExactDivergence() if exact else Hutchinson(x, noise, self.probes or 1)
            schedule = self.model.schedule
            return flow_terms(
                denoise, schedule, x, self.path, noise,
                prior=prior, solver=self.solver, divergence=trace,
            )  # fmt: skip

        return _mean(self.draws, once)


def _alone(model: GaussianDiffusion, label: Tensor | None) -> DenoiseFn:
    """The model without guidance, and a self-conditioning one without its last estimate (0).

    What it said of another noisy state of the same image would let it look at the image twice.
    """
    given = Condition(label)
    return lambda query: model(query._replace(given=given))


def _mean(draws: int, once: Callable[[], Tensor]) -> Tensor:
    return torch.stack([once() for _ in range(draws)]).mean(0)


def terms_of(score: Score, x0: Tensor, labels: Tensor | None, seed: int, batch_size: int) -> Tensor:
    """Parts of all images, float64 (N, S + 1) on the CPU.

    Args:
        score: What is asked.
        x0: Images (N, *) on the model's device.
        labels: Their classes (N,) on any device, or None.
        seed: Image k's noise comes from (seed, k) alone.
        batch_size: Images at a time.

    Raises:
        ValueError: parts that are not finite, or an adaptive solver that gave up.
    """
    parts = []
    for first in range(0, len(x0), batch_size):
        x = x0[first : first + batch_size]
        label = None if labels is None else labels[first : first + batch_size].to(x.device)
        try:
            found = score(x, label, SampleNoise(seed, first, len(x)))
        except TooManyCallsError:
            raise ValueError("the solver gave up: take more steps or a larger tolerance") from None
        parts.append(found.detach().cpu().double())
    terms = torch.cat(parts)
    if not bool(torch.isfinite(terms).all()):
        raise ValueError("the likelihood is not finite: the model has diverged")
    return terms


def totals(score: Score, terms: Tensor) -> Tensor:
    """-log p of each image, (N,), in `unit_of`, from its parts (N, S + 1)."""
    return (terms.sum(1) + score.offset) * factor_of(score)


def unit_of(score: Score) -> str:
    """bits/dim of grey values, nats/dim of other numbers."""
    return "bits/dim" if score.grey else "nats/dim"


def factor_of(score: Score) -> float:
    """From nats to the unit."""
    return 1 / math.log(2) if score.grey else 1.0


def class_scores(score: Score, x0: Tensor, num_classes: int, seed: int, batch_size: int) -> Tensor:
    """-log p(x0 | class) of every class, (N, num_classes), from the same noise for all classes."""
    columns = []
    for k in range(num_classes):
        labels = torch.full((len(x0),), k, dtype=torch.long)
        columns.append(totals(score, terms_of(score, x0, labels, seed, batch_size)))
    return torch.stack(columns, dim=1)
