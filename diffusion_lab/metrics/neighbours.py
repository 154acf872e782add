"""Do samples lie where real images are, and do they reach all of them? By nearest neighbours.

The ball of a point has the distance to its k-th nearest neighbour (itself not counted) in its own
set as radius. Of N samples and M real images, as feature vectors:

* precision: share of samples in the ball of a real image; recall: share of real images in the
  ball of a sample (Kynkäänniemi et al. 2019, eq. 1-2, k = 3);
* density: mean number of real balls that a sample is in, over k; coverage: share of real balls
  that hold a sample (Naeem et al. 2020, eq. 2-3, k = 5). Density exceeds 1 where samples crowd.

All four depend on N and M, and a perfect sampler does not reach 1: compare with real images of the
same number. True values of the intervals: expectations at this N, for these real images.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.metrics.intervals import Jackknife, PerSample

K_RECALL, K_COVERAGE = 3, 5
"""Neighbours that decide the balls of precision and recall, and of density and coverage."""


class Neighbours(NamedTuple):
    """The four figures, see the head of this file."""

    precision: PerSample
    recall: Jackknife
    density: PerSample
    coverage: Jackknife


def neighbours(samples: Tensor, real: Tensor, groups: Tensor) -> Neighbours:
    """Precision, recall, density and coverage of samples.

    Args:
        samples: features ``(N, D)``, N of at least k + 2 outside each group.
        real: features ``(M, D)`` of real images, M of at least k + 1; k = 5.
        groups: int64 ``(N,)``, see `intervals.deal`.

    Raises:
        ValueError: too few samples or real images, or feature spaces that differ.
    """
    sizes = torch.bincount(groups)
    fewest = min(len(samples) - int(sizes.max()), len(real))
    if fewest <= K_COVERAGE or samples.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"samples {tuple(samples.shape)} and real {tuple(real.shape)}: both need (N, D) of one "
            f"D, with more than {K_COVERAGE} vectors when a group of samples is left out"
        )
    between = distances(real, samples)
    own = distances(real, real).fill_diagonal_(torch.inf)
    radii = own.topk(K_COVERAGE, dim=1, largest=False).values
    inside = between <= radii[:, -1:]
    return Neighbours(
        PerSample((between <= radii[:, K_RECALL - 1, None]).any(0).numpy()),
        _recall(samples, between, groups),
        PerSample((inside.sum(0).double() / K_COVERAGE).numpy()),
        _coverage(inside, groups),
    )


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances ``(N, M)``, float32, without the cancellation of a matrix product."""
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _coverage(inside: Tensor, groups: Tensor) -> Jackknife:
    """From ``inside (M, N)``: is sample n in the ball of real image m?"""
    held = torch.zeros(len(inside), int(groups.max()) + 1).index_add_(1, groups, inside.float())
    total = held.sum(1, keepdim=True)
    left = (total - held > 0).double().mean(0)
    return Jackknife(float((total > 0).double().mean()), left.numpy(), (0.0, 1.0))


def _recall(samples: Tensor, between: Tensor, groups: Tensor) -> Jackknife:
    """From distances ``between (M, N)`` of real images and samples."""
    own = distances(samples, samples).fill_diagonal_(torch.inf)
    # So many neighbours that k of them are left whatever group goes.
    most = min(K_RECALL + int(torch.bincount(groups).max()), len(samples) - 1)
    near, index = own.topk(most, dim=1, largest=False)
    near_group = groups[index]

    def recall(group: int) -> float:
        kept = near_group != group
        place = (kept.cumsum(1) == K_RECALL).int().argmax(1, keepdim=True)
        radius = near.gather(1, place).squeeze(1)
        radius[groups == group] = -1.0  # a ball that holds nothing
        return float((between <= radius).any(1).double().mean())

    left = np.array([recall(group) for group in range(int(groups.max()) + 1)])
    return Jackknife(recall(-1), left, (0.0, 1.0))
