r"""Maximum mean discrepancy: a distance of distributions without a Gaussian and without bias.

Of samples x_1 .. x_N and real y_1 .. y_M, with a kernel k (Gretton et al. 2012, eq. 3):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Its expectation does not depend on N or M and is 0 for equal distributions; it may be negative. In
features with the kernel (x.y / d + 1)^3 it is the kernel distance (Binkowski et al. 2018, "KID" for
Inception's features, which these are not).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.intervals import Jackknife, pair_mean

Kernel = Callable[[Tensor, Tensor], Tensor]
"""``(N, d), (M, d) -> (N, M)``."""

ROWS = 500
"""Rows of a kernel matrix that are in memory at once."""
WIDTHS = (0.5, 1.0, 2.0)
"""Bandwidths of `gaussian_kernel`, times the median distance."""


class Reference(NamedTuple):
    """What samples are compared with.

    Attributes:
        points: float64 ``(M, d)``, M of at least 2.
        kernel: the kernel.
        within: mean of the kernel over pairs of different points.
    """

    points: Tensor
    kernel: Kernel
    within: float


def cubic(x: Tensor, y: Tensor) -> Tensor:
    """The kernel (x.y / d + 1)^3 of Binkowski et al. (2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian_kernel(points: Tensor) -> Kernel:
    """Mean of exp(-r^2 / (2 s^2)) over s = 1/2, 1 and 2 times the median distance of points.

    Args:
        points: ``(M, d)``; the first 1,000 decide the median.

    Raises:
        ValueError: more than half of the points are the same.
    """
    median = float(torch.pdist(points[:1000].double()).median())
    if not median > 0:
        raise ValueError("points: their median distance is 0, so there is no bandwidth")
    scales = [2 * (width * median) ** 2 for width in WIDTHS]

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        squares = torch.cdist(x, y).square()
        return sum((-squares / s).exp() for s in scales) / len(scales)  # type: ignore[return-value]

    return kernel


def reference_of(points: Tensor, kernel: Kernel = cubic) -> Reference:
    """Real points ``(M, d)`` with what of the distance depends on them alone.

    Raises:
        ValueError: fewer than two points.
    """
    if points.ndim != 2 or len(points) < 2:
        raise ValueError(f"points={tuple(points.shape)}: need (M, d) with M of at least 2")
    points = points.double()
    one_group = torch.zeros(len(points), dtype=torch.long)
    within = float(pair_sums(points, kernel, one_group)) / (len(points) * (len(points) - 1))
    return Reference(points, kernel, within)


def squared_mmd(samples: Tensor, reference: Reference, groups: Tensor) -> Jackknife:
    """Unbiased MMD^2 of samples and real points, with its jackknife.

    Args:
        samples: ``(N, d)``, N of at least 2.
        reference: the real points, see `reference_of`.
        groups: int64 ``(N,)``, see `intervals.deal`; at least 2 samples outside each.

    Raises:
        ValueError: spaces of different dimension.
    """
    if samples.shape[1:] != reference.points.shape[1:]:
        raise ValueError(
            f"samples {tuple(samples.shape)} and points {tuple(reference.points.shape)}: "
            "both need the same dimension"
        )
    x, sizes = samples.double(), torch.bincount(groups)
    across = torch.cat([reference.kernel(rows, reference.points).mean(1) for rows in x.split(ROWS)])
    within, within_left = pair_mean(pair_sums(x, reference.kernel, groups), sizes)
    sums = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, groups, across)
    left = (sums.sum() - sums) / (len(x) - sizes)
    value = within + reference.within - 2 * float(across.mean())
    return Jackknife(value, within_left + reference.within - 2 * left.numpy())


def pair_sums(x: Tensor, kernel: Kernel, groups: Tensor) -> Tensor:
    """Sum of the kernel over pairs of different points, by their groups: float64 ``(g, g)``."""
    count = int(groups.max()) + 1
    sums = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        matrix = kernel(x[start : start + ROWS], x)
        matrix.diagonal(start).zero_()
        columns = torch.zeros(len(matrix), count, dtype=torch.float64)
        columns.index_add_(1, groups, matrix)
        sums.index_add_(0, groups[start : start + ROWS], columns)
    return sums
