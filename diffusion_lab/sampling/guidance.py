"""Guidance: denoisers made of denoisers."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level, combine
from diffusion_lab.diffusion.model import Denoised, GaussianDiffusion
from diffusion_lab.sampling.sampler import DenoiseFn


def null_label(model: GaussianDiffusion, label: Tensor) -> Tensor:
    """The null class, row `num_classes` of the network's label table, shaped like `label`."""
    classes = getattr(model.denoiser, "num_classes", None)
    if classes is None:
        raise ValueError(
            "a label was given, but this model was trained without classes: leave label out"
        )
    return torch.full_like(label, int(classes))


class ClassifierFree:
    """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598), on x0-hat.

    x0 = u + scale (c - u), with c given the class and u given the null class. The scale is 1 + w
    of the paper: 0 is unconditional and 1 conditional, each at one network call of B images;
    any other scale is one call of 2 B.

    Args:
        scale: Any finite number; 1 to 4 is usual on digits.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not abs(scale) < float("inf"):
            raise ValueError(f"guidance.scale={scale} must be a finite number; 1 is no guidance")
        self.scale = scale

    def __call__(
        self, model: GaussianDiffusion, label: Tensor | None = None, **cond: Tensor
    ) -> DenoiseFn:
        """A guided denoiser; label None is unconditional."""
        if label is None:
            return lambda x_t, level: model(x_t, level, None, **cond)
        null = null_label(model, label)
        if self.scale in (0.0, 1.0):
            only = label if self.scale == 1.0 else null
            return lambda x_t, level: model(x_t, level, only, **cond)
        both = torch.cat((label, null))
        doubled = {name: torch.cat((value, value)) for name, value in cond.items()}

        def guided(x_t: Tensor, level: Level) -> Denoised:
            if level.t.ndim:
                level = Level(*(torch.cat((part, part)) for part in level))
            c, u = model(torch.cat((x_t, x_t)), level, both, **doubled).x0.chunk(2)
            return Denoised(combine((self.scale, c), (1.0 - self.scale, u)))

        return guided
