"""How likely a model finds data, in parts: the variational bound and the probability flow ODE.

A `Score` maps images to terms (see `diffusion.bound` and `sampling.ode_likelihood`); `terms_of`
computes them for a data set, and `class_scores` for every class (Li et al., "Your Diffusion
Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203, with the bound's own weights in place
of their equal ones). `likelihood_summary` adds the terms up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

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

PriorMoments = tuple[Tensor, Tensor]
"""Mean and standard deviation of the prior."""


@dataclass(frozen=True)
class Score(ABC):
    """Minus the log likelihood of images, in parts.

    Attributes:
        model: In eval mode; it is used without guidance, and a self-conditioning one without its
            last estimate: one from another noisy state of an image would show it the image twice.
        path: Levels from noise to data; the parts after the first belong to its intervals.
        grey: Whether images hold grey values of 8 bits; then results are in bits, else in nats.
        draws: Of noise, for each image.
    """

    model: GaussianDiffusion
    path: Sequence[Level]
    grey: bool
    draws: int = 1

    @property
    def offset(self) -> float:
        """Added to the sum of the parts, nats per dimension."""
        return 0.0

    @property
    def calls(self) -> int:
        """Network calls per image."""
        return self.draws * (len(self.path) - 1)

    @property
    def unit(self) -> str:
        """bits/dim of grey values, nats/dim of other numbers."""
        return "bits/dim" if self.grey else "nats/dim"

    @property
    def factor(self) -> float:
        """From nats to the unit."""
        return 1 / math.log(2) if self.grey else 1.0

    def __call__(self, x0: Tensor, label: Tensor | None, noise: Noise) -> Tensor:
        """Parts (B, S + 1) of images (B, *), nats per dimension: the prior's, then by interval."""
        prior, denoise = prior_moments(self.model, self.path[0], x0), self.denoise_of(label)
        return torch.stack([self.once(denoise, x0, noise, prior) for _ in range(self.draws)]).mean(
            0
        )

    @abstractmethod
    def once(self, denoise: DenoiseFn, x0: Tensor, noise: Noise, prior: PriorMoments) -> Tensor:
        """The parts of one draw of noise."""

    def denoise_of(self, label: Tensor | None) -> DenoiseFn:
        """The model for images of these classes."""
        given = Condition(label)
        return lambda query: self.model(query._replace(given=given))


@dataclass(frozen=True)
class BoundScore(Score):
    """The variational bound, with the variance of the reverse steps; its path ends at sigma = 0.

    Its last part is the reconstruction.
    """

    variance: Variance = field(kw_only=True)

    @torch.no_grad()
    def once(self, denoise: DenoiseFn, x0: Tensor, noise: Noise, prior: PriorMoments) -> Tensor:
        """See `Score`."""
        parts = (denoise, x0, self.path, noise, self.variance)
        return bound_terms(*parts, grey=self.grey, prior=prior)

    @torch.no_grad()
    def tightest(self, x0: Tensor, label: Tensor | None, noise: Noise) -> BoundScore:
        """This score with the path ended where the mean bound of images (B, *) is the lowest.

        They should not be those that are then scored.
        """
        parts = (self.denoise_of(label), x0, self.path, noise, self.variance)
        prior = prior_moments(self.model, self.path[0], x0)
        bounds = bounds_by_end(*parts, grey=self.grey, prior=prior).double().mean(0)
        return self.ended(float(self.path[int(bounds.argmin())].t))

    def ended(self, end: float) -> BoundScore:
        """This score without the levels between t = `end` and 0, but always with the first."""
        inner = [level for level in self.path[1:-1] if level.t >= end]
        return replace(self, path=[self.path[0], *inner, self.path[-1]])


@dataclass(frozen=True)
class FlowScore(Score):
    """The probability flow ODE; grey values are dequantised. No parameter has a gradient.

    Attributes:
        solver: See `sampling.ode_likelihood.flow_terms`.
        probes: Vectors that estimate the divergence; None computes it exactly.
        stages: Network calls of the solver in an interval; each is followed by derivatives.
    """

    solver: Callable[..., FrameSampler] = field(kw_only=True)
    probes: int | None = field(default=1, kw_only=True)
    stages: int = field(default=4, kw_only=True)

    @property
    def offset(self) -> float:
        """From the density to the probability of grey values."""
        return GREY_OFFSET if self.grey else 0.0

    @property
    def calls(self) -> int:
        """Network calls per image."""
        return super().calls * self.stages

    def once(self, denoise: DenoiseFn, x0: Tensor, noise: Noise, prior: PriorMoments) -> Tensor:
        """See `Score`."""
        x = dequantised(x0, noise) if self.grey else x0
        exact = self.probes is None
        trace = ExactDivergence() if exact else Hutchinson(x, noise, self.probes or 1)
        return flow_terms(
            denoise, self.model.schedule, x, self.path, noise,
            prior=prior, solver=self.solver, divergence=trace,
        )  # fmt: skip


def terms_of(score: Score, x0: Tensor, labels: Tensor | None, seed: int, batch_size: int) -> Tensor:
    """Parts of all images (N, *) of labels (N,), float64 (N, S + 1) on the CPU.

    The noise of image k depends on (seed, k) alone.

    Raises:
        ValueError: The parts are not finite, or an adaptive solver gave up.
    """
    parts = []
    for first in range(0, len(x0), batch_size):
        x = x0[first : first + batch_size]
        label = None if labels is None else labels[first : first + batch_size].to(x.device)
        try:
            part = score(x, label, SampleNoise(seed, first, len(x)))
        except TooManyCallsError:
            raise ValueError("the solver gave up: take more steps or a larger tolerance") from None
        parts.append(part.detach().cpu().double())
    terms = torch.cat(parts)
    if not bool(torch.isfinite(terms).all()):
        raise ValueError("the likelihood is not finite: the model has diverged")
    return terms


def totals(score: Score, terms: Tensor) -> Tensor:
    """-log p of each image, (N,), in the score's unit, from its parts (N, S + 1)."""
    return (terms.sum(1) + score.offset) * score.factor


def class_scores(score: Score, x0: Tensor, num_classes: int, seed: int, batch_size: int) -> Tensor:
    """-log p(x0 | class) of every class, (N, num_classes), from the same noise for all classes."""
    columns = []
    for k in range(num_classes):
        labels = torch.full((len(x0),), k, dtype=torch.long)
        columns.append(totals(score, terms_of(score, x0, labels, seed, batch_size)))
    return torch.stack(columns, dim=1)
