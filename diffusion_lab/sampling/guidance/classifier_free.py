"""Guidance by the difference that a condition makes, of one model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from diffusion_lab.diffusion.answers import ask_each, extrapolated
from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import along, combine
from diffusion_lab.diffusion.model import Denoised, DenoiseFn
from diffusion_lab.errors import ArgumentError
from diffusion_lab.ranges import Positive, Share, checked
from diffusion_lab.sampling.guidance.strength import (
    Strength,
    checked_scale,
    scale_at,
)
from diffusion_lab.sampling.pipeline import Model

Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


class CombinationRule(ABC):
    """What is made of the unconditional and the conditional x0-hat."""

    @abstractmethod
    def fresh(self) -> Combine:
        """A function (u (B, *), c (B, *), scale (B,) or ()) -> x0-hat for one sampling call."""


class Extrapolate(CombinationRule):
    """u + scale (c - u) (Ho & Salimans, arXiv 2207.12598, eq. 6, scale = 1 + w)."""

    def fresh(self) -> Combine:
        """`extrapolated`."""
        return extrapolated


class Rescaled(CombinationRule):
    """Extrapolation, given back the standard deviation of c (Lin et al., arXiv 2305.08891, 3.4).

    Each image's extrapolated x0-hat is multiplied by std(c) / std(it), `share` of the way.
    """

    @checked
    def __init__(self, share: Share = 0.7) -> None:
        self.share = share

    def fresh(self) -> Combine:
        """Their equations 15 and 16, on x0-hat."""

        def rescaled(u: Tensor, c: Tensor, scale: Tensor) -> Tensor:
            guided = extrapolated(u, c, scale)
            of_c, of_guided = c.flatten(1).std(1), guided.flatten(1).std(1)
            factor = self.share * of_c / of_guided.clamp_min(1e-12) + (1 - self.share)
            return combine((factor.double(), guided))

        return rescaled


class Projected(CombinationRule):
    r"""Adaptive projected guidance (Sadat et al., "APG", arXiv 2410.02416, algorithm 1).

    The difference d = c - u is averaged over the steps with negative momentum, shortened to
    `radius`, and split along c: the parallel part, which over-saturates, counts `parallel`.
    x0 = c + (scale - 1) (d_orthogonal + parallel d_parallel).
    """

    @checked
    def __init__(
        self,
        parallel: float = 0.0,
        radius: Positive | None = None,
        momentum: Annotated[float, Gt(-1), Lt(1)] = 0.0,
    ) -> None:
        self.parallel, self.radius, self.momentum = parallel, radius, momentum

    def fresh(self) -> Combine:
        """The algorithm, with a running difference of its own."""
        running: Tensor | None = None

        def projected(u: Tensor, c: Tensor, scale: Tensor) -> Tensor:
            nonlocal running
            d = c - u
            if self.momentum:
                d = d if running is None else d + self.momentum * running
                running = d
            if self.radius is not None:
                norm = d.flatten(1).norm(dim=1)
                d = combine(((self.radius / norm.clamp_min(1e-12)).clamp(max=1.0).double(), d))
            share = (d * c).flatten(1).sum(1) / (c * c).flatten(1).sum(1).clamp_min(1e-12)
            along_c = combine((share.double(), c))
            d = d - along_c + self.parallel * along_c
            return combine((1.0, c), (scale - 1.0, d))

        return projected


class ClassifierFree:
    r"""Classifier-free guidance (Ho & Salimans, arXiv 2207.12598), on x0-hat.

    x0 = u + scale (c - u), with c given the class and u given the null class. The scale is 1 + w
    of the paper: 0 is unconditional and 1 conditional, each at one network call of B images;
    any other scale is one call of 2 B.

    A composed label is a row of K classes for each image, ~k (which is -1 - k) meaning "not k". Its
    score is that of u plus the sum of +-(c_k - u), each times the scale (Liu et al., "Compositional
    Visual Generation", arXiv 2206.01714, eq. 11 and 13), at one call of (K + 1) B images.
    """

    def __init__(
        self,
        scale: float = 1.0,
        strength: Strength | None = None,
        rule: CombinationRule | None = None,
    ) -> None:
        self.scale = checked_scale(scale)
        self.strength = strength
        self.rule = Extrapolate() if rule is None else rule

    def __call__(self, model: Model) -> DenoiseFn:
        """A guided denoiser; a query without conditions is unconditional."""
        rule = self.rule.fresh()

        def guided(query: Query) -> Denoised:
            scale, given = scale_at(self.scale, self.strength, query.at), query.given
            if given.empty:
                return model(query)
            if given.label is not None and given.label.ndim == 2:
                return self._composed(model, query, given.label, scale)
            if bool((scale == 1).all()):
                return model(query)
            null = given.null(model.num_classes)
            if bool((scale == 0).all()):
                return model(query._replace(given=null))
            c, u = ask_each(model, query, (given, null))
            plain = along((scale == 1).double(), c.x0) * torch.ones_like(c.x0)
            x0 = torch.where(plain > 0, c.x0, rule(u.x0, c.x0, scale))
            return c._replace(x0=x0)

        return guided

    def _composed(self, model: Model, query: Query, label: Tensor, scale: Tensor) -> Denoised:
        """The answer to rows of classes (B, K), some of them negated."""
        if not isinstance(self.rule, Extrapolate):
            raise ArgumentError(
                "rule",
                type(self.rule).__name__,
                "defines no sum of score differences, which composed labels are; take Extrapolate",
            )
        rows = label.unbind(1)
        classes = [query.given._replace(label=torch.where(row < 0, ~row, row)) for row in rows]
        null = classes[0].null(model.num_classes)
        *parts, u = ask_each(model, query, (*classes, null))
        x0 = u.x0
        for row, part in zip(rows, parts, strict=True):
            sign = torch.where(row < 0, -1.0, 1.0).double().cpu()
            x0 = combine((1.0, x0), (sign * scale, part.x0 - u.x0))
        return u._replace(x0=x0)
