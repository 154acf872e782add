"""Are samples copies of training images? By the distance to the nearest one, in pixels.

Held-out real images define what is near: their nearest training image is as near as one gets
without copying. Of a sample's distance d and a test image's distance D:

* probability that d < D, ties counted half: 0.5 for real images, above if samples are copied,
  below if they are unlike the data (Meehan et al. 2020, "A non-parametric test to detect
  data-copying", whose statistic is this one);
* share of samples with d below the 1 % quantile of D: 0.01 for real images;
* ratio of the medians of d and D: 1 for real images.

Distances are Euclidean over pixels in [-1, 1]. Test images are weighted so that their classes occur
as often as they were requested: ones lie closer together than eights.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from diffusion_lab.metrics.intervals import (
    CONFIDENCE,
    Array,
    ConfidenceInterval,
    Jackknife,
    PerSample,
    jackknife,
    mean_difference,
)
from diffusion_lab.pixels import to_pixel_values

CANDIDATES = 4
"""Nearest images by the fast formula whose distances are then computed without rounding."""
BLOCK = 5000
"""Training images in memory as float at once."""
NEAR = 0.01
"""Quantile of the test images' distances below which a sample counts as a near copy."""


class Nearest(NamedTuple):
    """The nearest training image of each image.

    Attributes:
        distance: float64 (N,), Euclidean over pixels in [-1, 1].
        index: int64 (N,), position in the training set; of equally near ones the first.
    """

    distance: Tensor
    index: Tensor


class Closer(NamedTuple):
    """Probability that a sample is closer than a test image, an `Estimate`; both sets are random.

    Attributes:
        values: (N,), for each sample the share of test images that it is closer than.
        variance: Of the mean, by DeLong et al. (1988): that of the samples plus that of the test
            images.
    """

    values: Array
    variance: float

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.values.mean())

    def interval(self) -> ConfidenceInterval:
        """Normal interval within [0, 1]."""
        half = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(self.variance))
        return ConfidenceInterval(
            self.value, max(self.value - half, 0.0), min(self.value + half, 1.0)
        )

    def minus(self, other: Closer) -> ConfidenceInterval:
        """Paired difference for the same test images, by the bootstrap."""
        return mean_difference(self.values, other.values)


class Memorisation(NamedTuple):
    """The three metrics of the head of this file.

    Attributes:
        ratio: Of the medians.
        near: For each sample, whether it is closer than the 1 % quantile of test images.
        closer: The probability.
    """

    ratio: Jackknife
    near: PerSample
    closer: Closer


def nearest_training_images(images: Tensor, train: Tensor) -> Nearest:
    """Find the nearest training image, of uint8 (M, *), of each image (N, *).

    The images have 256 greys: uint8, or float in [-1, 1] as `features.quantised` gives them.

    Raises:
        ValueError: No training images, or images of another size.
    """
    flat, bank = images.flatten(1), train.flatten(1)
    if not len(bank) or flat.shape[1:] != bank.shape[1:]:
        raise ValueError(
            f"images {tuple(images.shape)} and train {tuple(train.shape)}: both need images of one "
            "size, train at least one"
        )
    x = flat.float() if flat.dtype == torch.uint8 else to_pixel_values(flat.float())
    values = torch.full((len(x), 0), torch.inf)
    index = torch.empty(len(x), 0, dtype=torch.long)
    for start in range(0, len(bank), BLOCK):
        part = bank[start : start + BLOCK].float()
        # |x - t|^2 - |x|^2: what does not depend on t is left out
        squares = torch.addmm(part.square().sum(1), x, part.T, alpha=-2)
        near = squares.topk(min(CANDIDATES, len(part)), dim=1, largest=False)
        values = torch.cat([values, near.values], 1)
        index = torch.cat([index, near.indices + start], 1)
    chosen = values.topk(min(CANDIDATES, values.shape[1]), dim=1, largest=False).indices
    candidates = index.gather(1, chosen).sort(dim=1).values
    exact = torch.stack(
        [(x.long() - bank[column].long()).square().sum(1) for column in candidates.T], dim=1
    )
    best = exact.argmin(1, keepdim=True)  # of equal ones the first, since the indices are sorted
    distance = exact.gather(1, best).squeeze(1).double().sqrt() * (2 / 255)
    return Nearest(distance, candidates.gather(1, best).squeeze(1))


def weights_like(labels: Tensor | None, test_labels: Tensor) -> Tensor:
    """Weights of the test images, float64 (M,) of sum 1, that mix their classes as in `labels`.

    Raises:
        ValueError: There is no test image of a requested class.
    """
    if labels is None:
        return torch.full((len(test_labels),), 1 / len(test_labels), dtype=torch.float64)
    number = 1 + max(int(labels.max()), int(test_labels.max()))
    requested = torch.bincount(labels.cpu(), minlength=number).double() / len(labels)
    counts = torch.bincount(test_labels, minlength=number)
    missing = ((requested > 0) & (counts == 0)).nonzero().squeeze(1).tolist()
    if missing:
        raise ValueError(f"labels: there is no test image of the requested classes {missing}")
    return (requested / counts.clamp(min=1))[test_labels]


def memorisation(
    samples: Tensor, held_out: Tensor, weights: Tensor, groups: Tensor
) -> Memorisation:
    """Compare distances to the nearest training image, of samples (N,) and of test images (M,).

    The test images have weights (M,), see `weights_like`.

    Raises:
        ValueError: Half of the test images are in the training set.
    """
    ours, theirs = samples.double().numpy(), held_out.double().numpy()
    weight = weights.double().numpy()
    middle = _quantile(theirs, weight, 0.5)
    if not middle > 0:
        raise ValueError("held_out: half of these images are in the training set, copies of it")
    ratio = jackknife(
        lambda chosen: float(np.median(ours[chosen.numpy()])) / middle, groups, (0, np.inf)
    )
    closer = _share_above(ours, theirs, weight)
    even = np.full(len(ours), 1 / len(ours))
    beaten = 1 - _share_above(theirs, ours, even)  # of each test image: share of samples closer
    variance = closer.var(ddof=1) / len(ours)
    variance = float(variance + (weight**2 * (beaten - closer.mean()) ** 2).sum())
    near = PerSample(ours < _quantile(theirs, weight, NEAR))
    return Memorisation(ratio, near, Closer(closer, variance))


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
