"""Are samples copies of training images? By the distance to the nearest one, in pixels.

The measure of "near" is held-out real images: their nearest training image is as near as one gets
by honest drawing. Of a sample's distance d and a test image's distance D:

* probability that d < D, ties counted half: 0.5 for a perfect sampler, above if it copies, below
  if its samples are no digits (Meehan et al. 2020, "A non-parametric test to detect data-copying",
  whose statistic is this one);
* share of samples with d below the 1 % quantile of D: 0.01 for a perfect sampler;
* ratio of the medians of d and D: 1 for a perfect sampler.

Distances are Euclidean over pixels in [-1, 1]. Where classes were asked for, test images count
as often as their class was asked for: ones lie closer together than eights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from diffusion_lab.metrics.intervals import (
    LEVEL,
    Array,
    ConfidenceInterval,
    Jackknife,
    PerSample,
    jackknife,
    mean_difference,
)
from diffusion_lab.pixels import to_grey

CANDIDATES = 4
"""Nearest images by the fast formula whose distances are then computed without rounding."""
CHUNK = 5000
"""Training images in memory as float at once."""
NEAR = 0.01
"""Quantile of the test images' distances below which a sample counts as a near copy."""


class Nearest(NamedTuple):
    """The nearest training image of each image.

    Attributes:
        distance: float64 ``(N,)``, Euclidean over pixels in [-1, 1].
        index: int64 ``(N,)``, position in the training set; of equally near ones the first.
    """

    distance: Tensor
    index: Tensor


class Closer(NamedTuple):
    """Probability that a sample is closer than a test image; the luck of both is uncertain.

    Attributes:
        values: ``(N,)``, of each sample the share of test images that it is closer than.
        variance: of the mean, by DeLong et al. (1988): that of the samples, and that of the
            test images.
    """

    values: Array
    variance: float

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.values.mean())

    def interval(self) -> ConfidenceInterval:
        """Normal interval within [0, 1]."""
        half = float(stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(self.variance))
        return ConfidenceInterval(
            self.value, max(self.value - half, 0.0), min(self.value + half, 1.0)
        )

    def minus(self, other: Closer) -> ConfidenceInterval:
        """Paired difference for the same test images, by the bootstrap."""
        return mean_difference(self.values, other.values)


class Memorisation(NamedTuple):
    """The three figures of the head of this file.

    Attributes:
        ratio: of the medians.
        near: a bool a sample: closer than the 1 % quantile of test images?
        closer: the probability.
    """

    ratio: Jackknife
    near: PerSample
    closer: Closer


def nearest_training_images(images: Tensor, train: Tensor) -> Nearest:
    """The nearest training image of each image.

    Args:
        images: ``(N, *)`` in 256 greys: uint8, or float in [-1, 1] as `as_seen` gives it.
        train: uint8 ``(M, *)``.

    Raises:
        ValueError: no training images, or images of another size.
    """
    x, bank = _greys(images), train.flatten(1)
    if not len(bank) or x.shape[1:] != bank.shape[1:]:
        raise ValueError(
            f"images {tuple(images.shape)} and train {tuple(train.shape)}: both need images of one "
            "size, train at least one"
        )
    values = torch.full((len(x), 0), torch.inf)
    places = torch.empty(len(x), 0, dtype=torch.long)
    for start in range(0, len(bank), CHUNK):
        part = bank[start : start + CHUNK].float()
        # |x - t|^2 - |x|^2: what does not depend on t is left out
        squares = torch.addmm(part.square().sum(1), x, part.T, alpha=-2)
        near = squares.topk(min(CANDIDATES, len(part)), dim=1, largest=False)
        values = torch.cat([values, near.values], 1)
        places = torch.cat([places, near.indices + start], 1)
    chosen = values.topk(min(CANDIDATES, values.shape[1]), dim=1, largest=False).indices
    return _exact(x, bank, places.gather(1, chosen).sort(dim=1).values)


def _greys(images: Tensor) -> Tensor:
    """Grey values 0 .. 255 as float32 ``(N, P)``."""
    flat = images.flatten(1)
    return flat.float() if flat.dtype == torch.uint8 else to_grey(flat.float())


def _exact(x: Tensor, bank: Tensor, places: Tensor) -> Nearest:
    squares = torch.stack(
        [(x.long() - bank[column].long()).square().sum(1) for column in places.T], dim=1
    )
    best = squares.argmin(1, keepdim=True)  # the first of equal ones: places rise
    distance = squares.gather(1, best).squeeze(1).double().sqrt() * (2 / 255)
    return Nearest(distance, places.gather(1, best).squeeze(1))


def memorisation(
    samples: Tensor, held_out: Tensor, weights: Tensor, groups: Tensor
) -> Memorisation:
    """Compare distances to the nearest training image.

    Args:
        samples: distances of the samples ``(N,)``.
        held_out: distances of the test images ``(M,)``, not all 0.
        weights: how much each test image counts ``(M,)``, at least 0, of sum 1.
        groups: int64 ``(N,)``, see `intervals.deal`.

    Raises:
        ValueError: half of the test images lie in the training set.
    """
    ours, theirs = samples.double().numpy(), held_out.double().numpy()
    weight = weights.double().numpy()
    middle = _quantile(theirs, weight, 0.5)
    if not middle > 0:
        raise ValueError("held_out: half of these images are in the training set, copies of it")
    ratio = jackknife(
        lambda kept: float(np.median(ours[kept.numpy()])) / middle, groups, (0, np.inf)
    )
    return Memorisation(
        ratio, PerSample(ours < _quantile(theirs, weight, NEAR)), _closer(ours, theirs, weight)
    )


def _share_above(at: Array, values: Array, weight: Array) -> Array:
    """Weight of `values` above each of `at`, ties half."""
    order = values.argsort(kind="stable")
    sums = np.concatenate([[0.0], weight[order].cumsum()])
    below = sums[np.searchsorted(values[order], at, side="left")]
    up_to = sums[np.searchsorted(values[order], at, side="right")]
    return sums[-1] - (below + up_to) / 2


def _quantile(values: Array, weight: Array, q: float) -> float:
    """The smallest value that at least the share `q` of the weight is not above."""
    order = values.argsort(kind="stable")
    place = int(np.searchsorted(weight[order].cumsum(), q - 1e-12))
    return float(values[order][min(place, len(values) - 1)])


def _closer(ours: Array, theirs: Array, weight: Array) -> Closer:
    closer = _share_above(ours, theirs, weight)
    even = np.full(len(ours), 1 / len(ours))
    beaten = 1 - _share_above(theirs, ours, even)  # of each test image: share of samples closer
    variance = closer.var(ddof=1) / len(ours)
    return Closer(closer, float(variance + (weight**2 * (beaten - closer.mean()) ** 2).sum()))
