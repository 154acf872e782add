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
    """Draw under the run's precision, every process its share; to be called by all of them.

    Images are the same on any number of processes, since image k depends on (seed, k) alone.
    Arguments are those of the module's `sample`; every process gets all samples. Vectors and images
    that the model is conditioned on are null.
    """
    world, rank = trainer.world_size, module.global_rank
    share = -(-num_samples // world)
    with trainer.precision_plugin.forward_context():
        mine = module.sample(
            share,
            every_class(module),
            sampler=sampler,
            guidance=guidance,
            seed=seed,
            batch_size=batch_size,
            first=rank * share,
        )
    if world == 1:
        return mine
    # Shares are equal, as gathering wants; what goes beyond `num_samples` is left out.
    gathered = module.all_gather(mine)
    assert isinstance(gathered, Tensor)
    return gathered.flatten(0, 1)[:num_samples]
