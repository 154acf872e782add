r"""Validation loss by noise level, at times and noise that belong to each image.

One number hides where a model fails: a change of the timestep distribution or of the weight moves
`val/loss` because it is measured differently. Here the measure is always the same: the unweighted
squared error of the network's target F, mean over pixels, in each tenth of the noise levels. So
runs that differ in timestep distribution, weight, network or optimizer compare level by level; with
another parameterization or schedule F itself is another thing.

Levels are counted as the network sees them (`Schedule.conditioning`): that is t itself, but for
EDM's schedule ln sigma, whose t = sigma / sigma_max would put all that matters into the first
tenth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.gaussian import marginal
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.diffusion.objectives import Batch
from diffusion_lab.diffusion.schedules import Schedule
from diffusion_lab.random import seeded_generator

LEVELS = 10
NAMES = tuple(
    f"val/loss_by_level/{100 * k // LEVELS:02d}-{100 * (k + 1) // LEVELS:02d}"
    for k in range(LEVELS)
)
"""One metric a range of levels, in per cent of the way from data to noise."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_HALVINGS = 50
"""Of the interval of times in which a level is looked for: exact to the last digits."""


class LossByLevel(Metric):
    """Collects the loss by noise level during a validation, over batches and processes.

    Image k of the validation set is measured at one time, in range k mod `LEVELS`, and with one
    noise, both settled by k alone: the same in every run and epoch, whatever the batch size and
    the number of processes. Any `LEVELS` images in a row cover all ranges. The noise is paired
    with its image whatever the objective's coupling, and a self-conditioning network is given no
    estimate of its own.

    Args:
        images: How many images, from the first one of the validation set on; 0 for none.
    """

    errors: Tensor
    measured: Tensor

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self._seen = 0
        for name in ("errors", "measured"):  # of each image, zero where another process has it
            self.add_state(name, torch.zeros(images), dist_reduce_fx="sum")

    def update(
        self, model: GaussianDiffusion, batch: Batch, counts: Sequence[int], rank: int
    ) -> None:
        """Measure those images of a batch that are among the first `images`.

        Args:
            model: The model, in eval mode.
            batch: This process's rows of the next batch.
            counts: Rows of each process, see `rows_of_processes`.
            rank: This process.
        """
        first = self._seen + sum(counts[:rank])
        self._seen += sum(counts)
        index = torch.arange(first, max(first, min(first + len(batch.x0), self.images)))
        if len(index):
            rows = slice(len(index))
            found = errors(model, batch.x0[rows], batch.given.rows(rows), index)
            self.errors[first : first + len(index)] = found
            self.measured[first : first + len(index)] = 1.0

    def compute(self) -> dict[str, float]:
        """Mean error in each range that was measured: name -> value."""
        total = torch.zeros(2, LEVELS, dtype=torch.float64)
        for row, values in zip(total, (self.errors, self.measured), strict=True):
            row.index_add_(0, torch.arange(self.images) % LEVELS, values.cpu().double())
        pairs = zip(NAMES, *total.tolist(), strict=True)
        return {name: error / count for name, error, count in pairs if count}

    def reset(self) -> None:
        """Forget what was collected; a validation begins."""
        super().reset()
        self._seen = 0


def errors(model: GaussianDiffusion, x0: Tensor, given: Condition, index: Tensor) -> Tensor:
    """Squared error of F, mean over pixels: (B,), at the images' own times and noise.

    Args:
        model: The model, in eval mode.
        x0: Images (B, *).
        given: Their conditions.
        index: Their places in the validation set, int64 (B,).
    """
    level = model.schedule(times(model.schedule, index))
    eps = torch.stack(
        [
            torch.randn(x0.shape[1:], generator=seeded_generator("validation level", k))
            for k in index.tolist()
        ]
    ).to(x0)
    raw = model(Query(marginal(x0, eps, level), level, given=given)).raw
    return (raw - model.target(x0, eps, level)).float().square().flatten(1).mean(1)


def times(schedule: Schedule, index: Tensor) -> Tensor:
    """The trained time of each image, float64 (B,), for places (B,) in the validation set.

    Inside its range image k stands at a place of the golden sequence, so that few images are spread
    as evenly as many. On a discrete schedule it is the nearest trained time.
    """
    inside = ((index // LEVELS).double() + 0.5) * _GOLDEN % 1.0
    return _time_at(schedule, (index % LEVELS + inside) / LEVELS)


def _time_at(schedule: Schedule, share: Tensor) -> Tensor:
    """The trained time at a share of the way from the smallest to the largest conditioning."""

    def conditioning(t: Tensor) -> Tensor:
        return schedule.conditioning(schedule(t))

    low = torch.full_like(share, schedule.t_min)
    high = torch.full_like(share, schedule.t_max)
    wanted = torch.lerp(conditioning(low), conditioning(high), share)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        above = conditioning(middle) > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return schedule.snap(high)


def rows_of_processes(module: pl.LightningModule, count: int) -> tuple[int, ...]:
    """Rows that each process has of a global batch, given this one's: unequal in the last one.

    A global batch holds the rows of process 0, then those of process 1, and so on.
    """
    if module.trainer.world_size == 1:
        return (count,)
    counts: Any = module.all_gather(torch.tensor(count, device=module.device))
    return tuple(counts.tolist())
