"""How features of samples compare with those of real images: distances and nearest neighbours.

Fréchet distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6):

    FD = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

It is biased upward for few samples by an amount that depends on their number: compare only values
of the same number of samples, or better the ratio to real held-out images of that number. The bias
is nearly proportional to 1 / N (Chong & Forsyth 2020 extrapolate it away); the jackknife removes
that part of it.

Maximum mean discrepancy of samples x_1 .. x_N and real y_1 .. y_M, with a kernel k (Gretton et al.
2012, eq. 3):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Its expectation does not depend on N or M and is 0 for equal distributions; it may be negative. In
features with the kernel (x.y / d + 1)^3 it is the kernel distance (Binkowski et al. 2018; "KID" is
that in Inception's features).

Nearest neighbours: the ball of a point has the distance to its k-th nearest neighbour in its own
set (itself not counted) as radius. Of N samples and M real images, as feature vectors:

* precision: share of samples in the ball of a real image; recall: share of real images in the
  ball of a sample (Kynkäänniemi et al. 2019, eq. 1-2, k = 3);
* density: mean number of real balls that a sample is in, over k; coverage: share of real balls
  that hold a sample (Naeem et al. 2020, eq. 2-3, k = 5). Density exceeds 1 where samples crowd.

All four depend on N and M, and real images do not reach 1: compare with real images of the same
number. True values of the intervals: expectations at this N, for these real images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.metrics.intervals import (
    ROWS,
    Array,
    Jackknife,
    PerSample,
    jackknife,
    pair_mean,
)

Kernel = Callable[[Tensor, Tensor], Tensor]
"""(N, d), (M, d) -> (N, M)."""

BANDWIDTHS = (0.5, 1.0, 2.0)
"""Of `gaussian_kernel`, times the median distance."""
K_RECALL, K_COVERAGE = 3, 5
"""Neighbours that define the balls of precision and recall, and of density and coverage."""


class Gaussian(NamedTuple):
    """Mean (D,) and covariance (D, D) of a set of feature vectors, float64."""

    mean: Array
    covariance: Array


def fit_gaussian(features: Tensor | NDArray[np.floating]) -> Gaussian:
    """Mean and unbiased covariance of features (N, D).

    Raises:
        ValueError: Fewer than two vectors, a wrong shape, or values that are not finite.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"features has shape {array.shape}: a covariance needs (N, D) with N of at least 2"
        )
    if not np.isfinite(array).all():
        raise ValueError("features holds values that are not finite: the samples are not images")
    mean = array.mean(0)
    centred = array - mean
    return Gaussian(mean, centred.T @ centred / (len(array) - 1))


def frechet(a: Gaussian, b: Gaussian) -> float:
    """Fréchet distance, the squared 2-Wasserstein distance of two Gaussians; at least 0.

    The trace of (C_a C_b)^(1/2) is the sum of the square roots of the eigenvalues of the symmetric
    matrix C_a^(1/2) C_b C_a^(1/2), so no complex matrix root is needed and singular covariances
    (fewer samples than features) are no special case.

    Raises:
        ValueError: The two feature spaces differ in size.
    """
    return _frechet(a, _root(a.covariance), b)


def frechet_jackknife(features: Tensor, reference: Gaussian, groups: Tensor) -> Jackknife:
    """Fréchet distance of features (N, D) to a reference that is taken as exact.

    `interval()` is of the expectation at this N; `unbiased()` estimates the distance of infinitely
    many samples, and may be a little below 0 where that is small.

    Raises:
        ValueError: As `fit_gaussian` and `frechet`.
    """
    array, root = np.asarray(features, dtype=np.float64), _root(reference.covariance)

    def distance(chosen: Tensor) -> float:
        return _frechet(reference, root, fit_gaussian(array[chosen.numpy()]))

    return jackknife(distance, groups, (0.0, np.inf))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _frechet(a: Gaussian, root: Array, b: Gaussian) -> float:
    """The distance, given the square root of the first covariance."""
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of size {a.mean.size} and {b.mean.size}: "
            "both sets must come from one network"
        )
    cross = np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(cross).sum()
    return float(max(((a.mean - b.mean) ** 2).sum() + spread, 0.0))


class KernelReference(NamedTuple):
    """Real points (M, d), float64, a kernel, and its mean over pairs of different points."""

    points: Tensor
    kernel: Kernel
    within: float


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """The kernel (x.y / d + 1)^3 of Binkowski et al. (2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(points: Tensor) -> Kernel:
    """Mean of exp(-r^2 / (2 s^2)) over s = 1/2, 1 and 2 times the median distance of points (M, d).

    The first 1,000 points decide the median.

    Raises:
        ValueError: More than half of the points are the same.
    """
    median = float(torch.pdist(points[:1000].double()).median())
    if not median > 0:
        raise ValueError("points: their median distance is 0, so there is no bandwidth")
    scales = [2 * (width * median) ** 2 for width in BANDWIDTHS]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squares = torch.cdist(x, y).square()
        return sum((-squares / s).exp() for s in scales) / len(scales)  # type: ignore[return-value]

    return kernel


def kernel_reference(points: Tensor, kernel: Kernel = cubic) -> KernelReference:
    """The part of the MMD that depends on real points (M, d) alone.

    Raises:
        ValueError: Fewer than two points.
    """
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"points={tuple(points.shape)}: need (M, d) with M of at least 2")
    points = points.double()
    one_group = torch.zeros(len(points), dtype=torch.long)
    return KernelReference(points, kernel, pair_mean(points, kernel, one_group).value)


def squared_mmd(samples: Tensor, reference: KernelReference, groups: Tensor) -> Jackknife:
    """Unbiased MMD^2 of samples (N, d) and real points, with its jackknife.

    Raises:
        ValueError: The spaces have different dimensions.
    """
    if samples.shape[1:] != reference.points.shape[1:]:
        raise ValueError(
            f"samples {tuple(samples.shape)} and points {tuple(reference.points.shape)}: "
            "both need the same dimension"
        )
    x, sizes = samples.double(), torch.bincount(groups)
    across = torch.cat([reference.kernel(rows, reference.points).mean(1) for rows in x.split(ROWS)])
    within = pair_mean(x, reference.kernel, groups)
    sums = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, groups, across)
    left = (sums.sum() - sums) / (len(x) - sizes)
    value = within.value + reference.within - 2 * float(across.mean())
    return Jackknife(value, within.left_out + reference.within - 2 * left.numpy())


class Neighbours(NamedTuple):
    """The four metrics of nearest neighbours, see the head of this file."""

    precision: PerSample
    recall: Jackknife
    density: PerSample
    coverage: Jackknife


def neighbours(samples: Tensor, real: Tensor, groups: Tensor) -> Neighbours:
    """Precision, recall, density and coverage of features (N, D) and those of real images (M, D).

    Raises:
        ValueError: Too few samples or real images, or feature spaces that differ.
    """
    sizes = torch.bincount(groups)
    fewest = min(len(samples) - int(sizes.max()), len(real))
    if fewest <= K_COVERAGE or samples.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"samples {tuple(samples.shape)} and real {tuple(real.shape)}: both need (N, D) of one "
            f"D, with more than {K_COVERAGE} vectors when a group of samples is left out"
        )
    between = _euclidean(real, samples)
    own = _euclidean(real, real).fill_diagonal_(torch.inf)
    radii = own.topk(K_COVERAGE, dim=1, largest=False).values
    inside = between <= radii[:, -1:]
    return Neighbours(
        PerSample((between <= radii[:, K_RECALL - 1, None]).any(0).numpy()),
        _recall(samples, between, groups),
        PerSample((inside.sum(0).double() / K_COVERAGE).numpy()),
        _coverage(inside, groups),
    )


def _euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Distances (N, M), float32, without the cancellation of a matrix product."""
    return torch.cdist(a.float(), b.float(), compute_mode="donot_use_mm_for_euclid_dist")


def _coverage(inside: Tensor, groups: Tensor) -> Jackknife:
    """From inside (M, N): is sample n in the ball of real image m?"""
    counts = torch.zeros(len(inside), int(groups.max()) + 1).index_add_(1, groups, inside.float())
    total = counts.sum(1, keepdim=True)
    left = (total - counts > 0).double().mean(0)
    return Jackknife(float((total > 0).double().mean()), left.numpy(), (0.0, 1.0))


def _recall(samples: Tensor, between: Tensor, groups: Tensor) -> Jackknife:
    """From distances between (M, N) of real images and samples."""
    own = _euclidean(samples, samples).fill_diagonal_(torch.inf)
    # So many neighbours that k of them are left whichever group is left out.
    most = min(K_RECALL + int(torch.bincount(groups).max()), len(samples) - 1)
    near, index = own.topk(most, dim=1, largest=False)
    near_group = groups[index]

    def recall(group: int) -> float:
        others = near_group != group
        kth = (others.cumsum(1) == K_RECALL).int().argmax(1, keepdim=True)
        radius = near.gather(1, kth).squeeze(1)
        radius[groups == group] = -1.0  # an empty ball
        return float((between <= radius).any(1).double().mean())

    left = np.array([recall(group) for group in range(int(groups.max()) + 1)])
    return Jackknife(recall(-1), left, (0.0, 1.0))
