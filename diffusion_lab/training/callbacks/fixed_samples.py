"""Samples that a run draws again and again: the same noise, classes in turn."""

from __future__ import annotations

import lightning.pytorch as pl
from torch import Tensor

from diffusion_lab.sampling.sampler import Guidance, Sampler
from diffusion_lab.training.module import DiffusionModule


def every_class(module: DiffusionModule) -> str | None:
    """The label of such samples: all classes in turn, or none where there are none."""
    return None if module.num_classes is None else "all"


def fixed_samples(
    trainer: pl.Trainer,
    module: DiffusionModule,
    num_samples: int,
    *,
    seed: int,
    sampler: Sampler | None = None,
    guidance: Guidance | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Draw under the run's precision; arguments and samples are those of the module's `sample`."""
    label = every_class(module)
    with trainer.precision_plugin.forward_context():
        return module.sample(
            num_samples, label, sampler=sampler, guidance=guidance, seed=seed, batch_size=batch_size
        )
