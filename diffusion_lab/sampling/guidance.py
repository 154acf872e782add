r"""Guidance: denoisers made of denoisers.

Everything acts on x0-hat. Since x0-hat, eps-hat, v and the score are affine in each other at one
(x_t, t), so is their guidance, as long as nothing is clipped in between: guide first, clip after.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import Level, along, combine, extrapolated
from diffusion_lab.diffusion.model import Denoised, DenoiseFn, GaussianDiffusion, ask_each
from diffusion_lab.errors import ArgumentError
from diffusion_lab.sampling.sampler import Model

Combine = Callable[[Tensor, Tensor, Tensor], Tensor]


def checked_scale(scale: float) -> float:
    """The scale, if it is a finite number; else an ArgumentError."""
    if not math.isfinite(scale):
        raise ArgumentError("scale", scale, "must be a finite number; 1 is no guidance")
    return scale


class Strength(ABC):
    """How much of the guidance acts at each noise level."""

    @abstractmethod
    def __call__(self, level: Level) -> Tensor:
        """Factor on (scale - 1), float64, of the level's shape; 0 is the conditional model."""


class Interval(Strength):
    """Guidance at times in (low, high] alone (Kynkaanniemi et al., arXiv 2404.07724).

    Outside, the conditional model is asked alone, at half the cost.

    Args:
        low: Cleanest time, in [0, 1).
        high: Noisiest time, above `low`.
    """

    def __init__(self, low: float = 0.2, high: float = 0.8) -> None:
        if not 0 <= low < high <= 1:
            raise ArgumentError(
                "low",
                low,
                f"must be at least 0 and below high={high}, at most 1 (0 is data, 1 is noise)",
            )
        self.low, self.high = low, high

    def __call__(self, level: Level) -> Tensor:
        """1 inside, 0 outside."""
        return ((level.t > self.low) & (level.t <= self.high)).double()


class PowerCosine(Strength):
    """From none at the noisiest to all at the cleanest: (1 - cos(pi (1 - t)^power)) / 2.

    Gao et al., "Masked Diffusion Transformer" (arXiv 2303.14389, appendix): early steps, which
    decide the composition, stay diverse.

    Args:
        power: > 0; larger comes later. The paper's 4 at scale 3.8.
    """

    def __init__(self, power: float = 1.0) -> None:
        if not power > 0:
            raise ArgumentError("power", power, "must be positive")
        self.power = power

    def __call__(self, level: Level) -> Tensor:
        """The formula above."""
        return 0.5 * (1 - torch.cos(math.pi * (1 - level.t).clamp(0, 1) ** self.power))


def scale_at(scale: float, strength: Strength | None, level: Level) -> Tensor:
    """1 + (scale - 1) strength(level), float64, of the level's shape; None is 1."""
    if strength is None:
        return torch.full_like(level.t, scale)
    return 1.0 + (scale - 1.0) * strength(level)


class Rule(ABC):
    """What is made of the unconditional and the conditional x0-hat."""

    @abstractmethod
    def fresh(self) -> Combine:
        """A function (u (B, *), c (B, *), scale (B,) or ()) -> x0-hat for one sampling call."""


class Extrapolate(Rule):
    """u + scale (c - u) (Ho & Salimans, arXiv 2207.12598, eq. 6, scale = 1 + w)."""

    def fresh(self) -> Combine:
        """`extrapolated`."""
        return extrapolated


class Rescaled(Rule):
    """Extrapolation, given back the standard deviation of c (Lin et al., arXiv 2305.08891, 3.4).

    Each image's extrapolated x0-hat is multiplied by std(c) / std(it), `share` of the way.

    Args:
        share: Their phi, in [0, 1]; 0 is plain extrapolation. The paper's 0.7.
    """

    def __init__(self, share: float = 0.7) -> None:
        if not 0 <= share <= 1:
            raise ArgumentError("share", share, "must lie in [0, 1]")
        self.share = share

    def fresh(self) -> Combine:
        """Their equations 15 and 16, on x0-hat."""

        def rescaled(u: Tensor, c: Tensor, scale: Tensor) -> Tensor:
            guided = extrapolated(u, c, scale)
            of_c, of_guided = c.flatten(1).std(1), guided.flatten(1).std(1)
            factor = self.share * of_c / of_guided.clamp_min(1e-12) + (1 - self.share)
            return combine((factor.double(), guided))

        return rescaled


class Projected(Rule):
    r"""Adaptive projected guidance (Sadat et al., "APG", arXiv 2410.02416, algorithm 1).

    The difference d = c - u is averaged over the steps with negative momentum, shortened to
    `radius`, and split along c: the parallel part, which over-saturates, counts `parallel`.
    x0 = c + (scale - 1) (d_orthogonal + parallel d_parallel).

    Args:
        parallel: Their eta; 1 with no radius and no momentum is plain extrapolation.
        radius: Largest norm of d, > 0 (their r); None for none.
        momentum: Their beta, above -1 and below 1; 0 for none. The paper's -0.5 to -0.75.
    """

    def __init__(
        self, parallel: float = 0.0, radius: float | None = None, momentum: float = 0.0
    ) -> None:
        if radius is not None and not radius > 0:
            raise ArgumentError("radius", radius, "must be positive, or null for none")
        if not -1 < momentum < 1:
            raise ArgumentError("momentum", momentum, "must lie between -1 and 1")
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

    Args:
        scale: Any finite number; 1 to 4 is usual on digits.
        strength: Factor on (scale - 1) by noise level; None is 1 everywhere.
        rule: What is made of u and c; None is `Extrapolate()`.
    """

    def __init__(
        self, scale: float = 1.0, strength: Strength | None = None, rule: Rule | None = None
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


def refuse_other_schedule(model: Model, other: GaussianDiffusion, name: str) -> None:
    """Refuse a second model, the argument `name`, whose noise levels or c_noise are others.

    Raises:
        ValueError: Levels or conditioning differ.
    """
    ours, theirs = (
        m.schedule(torch.linspace(0.1, 1, 10, dtype=torch.float64)) for m in (model, other)
    )
    numbers = model.schedule.conditioning(ours), other.schedule.conditioning(theirs)
    same = torch.allclose(ours.sigma, theirs.sigma) and torch.allclose(ours.alpha, theirs.alpha)
    if not same or not torch.allclose(*numbers):
        raise ValueError(
            f"{name}: this second model was trained on another schedule, so that its noise levels "
            "mean something else; train it with the schedule of the first"
        )


class AutoGuidance:
    """Guidance away from a weaker version of the same model (Karras et al., arXiv 2406.02507).

    x0 = weak + scale (strong - weak), both given the label; two calls of B images. The weaker one
    is an earlier checkpoint or a smaller network, on the same schedule.

    Args:
        weak: Gives the weaker model, e.g. `StoredModel("checkpoints/step_000500.ckpt")`.
        scale: Any finite number; 1 is the model itself, at one call.
        strength: Factor on (scale - 1) by noise level; None is 1 everywhere.
    """

    def __init__(
        self,
        weak: Callable[[], GaussianDiffusion],
        scale: float = 2.0,
        strength: Strength | None = None,
    ) -> None:
        self.weak = weak
        self.strength = strength
        self.scale = checked_scale(scale)

    def __call__(self, model: Model) -> DenoiseFn:
        """A guided denoiser.

        Raises:
            ValueError: the two models have different schedules.
        """
        weak = self.weak()
        refuse_other_schedule(model, weak, "weak")

        def guided(query: Query) -> Denoised:
            strong = model(query)
            scale = scale_at(self.scale, self.strength, query.at)
            if bool((scale == 1).all()):
                return strong
            other = weak.to(query.x.device).eval()(query)
            x0 = extrapolated(other.x0, strong.x0, scale)
            return strong._replace(x0=x0)

        return guided


class ClassifierGuidance:
    r"""Guidance by the gradient of a classifier of noisy images (Dhariwal & Nichol, 2105.05233).

    Their algorithm 1 on x0-hat: x0 + scale (sigma^2 / alpha) grad log p(label | x_t), since the
    score is (alpha x0 - x_t) / sigma^2. The diffusion model is asked without its class where
    `unconditional`, as in the paper's main experiment with an unconditional model.

    Args:
        classifier: Gives a model whose network maps (x_t (B, *), c_noise (B,)) to logits (B, K),
            trained on the same schedule.
        scale: >= 0; 1 is Bayes' rule.
        unconditional: Hide the label from the diffusion model.
    """

    def __init__(
        self,
        classifier: Callable[[], GaussianDiffusion],
        scale: float = 1.0,
        unconditional: bool = True,
    ) -> None:
        if not checked_scale(scale) >= 0:
            raise ArgumentError("scale", scale, "must be at least 0; 1 is Bayes' rule")
        self.classifier = classifier
        self.scale = scale
        self.unconditional = unconditional

    def __call__(self, model: Model) -> DenoiseFn:
        """A guided denoiser; without a label it is the model without guidance.

        Raises:
            ValueError: the two models have different schedules.
        """
        classifier = self.classifier()
        refuse_other_schedule(model, classifier, "classifier")

        def guided(query: Query) -> Denoised:
            x_t, level, label = query.x, query.at, query.given.label
            told = query.given._replace(label=None) if self.unconditional else query.given
            denoised = model(query._replace(given=told))
            if label is None or not self.scale:
                return denoised
            network = classifier.denoiser.to(x_t.device).eval()
            c_noise = model.schedule.conditioning(level).to(x_t.device, torch.float32)
            gradient = log_probability_gradient(network, x_t, c_noise.expand(len(x_t)), label)
            safe = torch.where(level.alpha > 0, level.alpha, torch.ones_like(level.alpha))
            factor = torch.where(level.alpha > 0, level.sigma**2 / safe, torch.zeros_like(safe))
            x0 = combine((1.0, denoised.x0), (self.scale * factor, gradient))
            return denoised._replace(x0=x0)

        return guided


def log_probability_gradient(
    classifier: nn.Module, x_t: Tensor, c_noise: Tensor, label: Tensor
) -> Tensor:
    """Gradient of log p(label | x_t) with respect to x_t, (B, *); label (B,)."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        log_p = classifier(x, c_noise, None).log_softmax(1).gather(1, label.view(-1, 1)).sum()
        (gradient,) = torch.autograd.grad(log_p, x)
    return gradient
