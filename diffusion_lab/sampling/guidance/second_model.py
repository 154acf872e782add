"""Guidance by a second model: a weaker one, or a classifier of noisy images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffusion_lab.diffusion.answers import extrapolated
from diffusion_lab.diffusion.conditions import Query
from diffusion_lab.diffusion.gaussian import combine
from diffusion_lab.diffusion.model import Denoised, DenoiseFn, GaussianDiffusion
from diffusion_lab.errors import ArgumentError
from diffusion_lab.sampling.guidance.strength import (
    Strength,
    checked_scale,
    scale_at,
)
from diffusion_lab.sampling.pipeline import Model


def check_same_schedule(model: Model, other: GaussianDiffusion, name: str) -> None:
    """Check that a second model, argument `name`, has the same levels and c_noise (ValueError)."""
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
        """A guided denoiser; a ValueError if the second model does not fit."""
        weak = self.weak()
        if not weak.denoises:
            raise ValueError("weak: this second model is a classifier, which denoises nothing")
        check_same_schedule(model, weak, "weak")

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
        """A guided denoiser; without a label it is the model without guidance."""
        classifier = self.classifier()
        if classifier.denoises:
            raise ValueError(
                "classifier: this second model is no classifier of noisy images; train one by "
                "experiment=noisy_classifier"
            )
        check_same_schedule(model, classifier, "classifier")

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
