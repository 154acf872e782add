"""95 % intervals of metrics that are computed from N samples.

The intervals cover the sampling noise of the generated samples; real images (the training set, a
reference) are taken as fixed. There are three kinds of metrics, with three intervals:

* a share (`PerSample` of bools): Wilson's score interval (Wilson 1927). True value: the share
  among infinitely many samples.
* a mean (`PerSample` of numbers): the bias-corrected and accelerated bootstrap (Efron 1987). True
  value: the mean of infinitely many samples.
* any other statistic of the set (`Jackknife`): the delete-a-group jackknife (Kott 2001,
  "Delete-a-group jackknife", J. Official Statistics 17). The samples are assigned to g random
  groups, about 50; T_j is the statistic without group j, and

      variance = (g - 1) / g  sum_j (T_j - mean T)^2,   T -+ t(g - 1) sqrt(variance)

  with Student's t. True value: the *expectation of T at this number of samples*, its bias
  included; real data have that bias too, so compare with their value at the same number.
  `Jackknife.unbiased` removes the part of the bias that is proportional to 1 / N (Quenouille
  1956): g T - (g - 1) mean T_j; its true value is the limit of infinitely many samples, up to the
  rest of the bias.

Coverage of the nominal 95 %, measured by simulation (`tests/metrics/test_coverage.py`: 300 samples
of 16 Gaussian features; 500 repeats, so with a standard error of about one point; true value: the
mean of all repeats), for samples of the real distribution and for shifted and too narrow ones:

    metric                real       worse
    fd                      98.6%    93.2%
    fd_unbiased             98.6%    92.6%
    kd                      98.0%    94.6%
    mmd                     97.4%    91.2%
    precision               93.2%    94.2%
    recall                  99.4%    99.2%
    density                 94.6%    93.6%
    coverage                99.6%    97.8%
    vendi                   99.2%    93.2%
    remaining_variance      92.8%    92.8%
    pairwise_distance       92.8%    92.8%
    class_entropy           94.6%    94.6%
    class_variation         99.8%    99.8%
    closer_probability      96.2%    95.8%
    sw                      95.2%    96.6%

So most intervals have their nominal coverage, some miss it by a few points (mmd of poor samples),
and some are too wide: those of nearest neighbours and of a distance near its least value, where a
jackknife overestimates the variance (Efron & Stein 1981). The bootstrap of 100 exponential values
covers 93 to 97 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

Array = NDArray[np.float64]

CONFIDENCE = 0.95
"""Nominal coverage."""
MAX_GROUPS = 50
"""Groups of a jackknife; fewer only where there are fewer samples."""
RESAMPLES = 2000
"""Resamples of a bootstrap."""
FEWEST = 10
"""Fewest samples that get an interval."""
ROWS = 500
"""Rows of a matrix of pairs that are in memory at once."""
UNBOUNDED = (-np.inf, np.inf)


class ConfidenceInterval(NamedTuple):
    """A value and the ends of its 95 % interval, in the unit of the metric."""

    value: float
    low: float
    high: float


class Estimate(Protocol):
    """A metric with its interval."""

    @property
    def value(self) -> float:
        """The metric."""
        ...

    def interval(self) -> ConfidenceInterval:
        """The metric with its interval."""
        ...

    def minus(self, other: Any) -> ConfidenceInterval:
        """Difference to the same metric of samples that are paired with these."""
        ...


class PerSample(NamedTuple):
    """The mean of one value per sample, `values` (N,): bools for a share, else numbers."""

    values: NDArray[np.generic]

    @property
    def value(self) -> float:
        """The mean."""
        return float(self.values.mean())

    def interval(self) -> ConfidenceInterval:
        """Wilson's for bools, the bootstrap's for numbers."""
        if self.values.dtype == bool:
            return share(int(self.values.sum()), len(self.values))
        return mean(self.values)

    def minus(self, other: PerSample) -> ConfidenceInterval:
        """Difference of the means of two sets whose k-th samples are paired; see `Estimate`."""
        return mean_difference(self.values, other.values)


class Jackknife(NamedTuple):
    """A statistic of a set, and the same without each group.

    Attributes:
        value: The statistic of all samples, or its value without bias.
        left_out: (g,), the statistic without each group.
        bounds: The least and the largest possible value; intervals are clipped to them.
    """

    value: float
    left_out: Array
    bounds: tuple[float, float] = UNBOUNDED

    def interval(self) -> ConfidenceInterval:
        """By the jackknife, see the head of this file."""
        groups, (least, largest) = len(self.left_out), self.bounds
        variance = (groups - 1) / groups * ((self.left_out - self.left_out.mean()) ** 2).sum()
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, groups - 1) * np.sqrt(variance))
        low, high = max(self.value - half, least), min(self.value + half, largest)
        return ConfidenceInterval(self.value, low, high)

    def unbiased(self) -> Jackknife:
        """Without the part of the bias that is proportional to 1 / N; it has no bounds."""
        groups = len(self.left_out)
        value = groups * self.value - (groups - 1) * float(self.left_out.mean())
        return Jackknife(value, self.left_out)

    def over(self, scale: float) -> Jackknife:
        """In units of a positive number that is taken as exact."""
        low, high = self.bounds
        return Jackknife(self.value / scale, self.left_out / scale, (low / scale, high / scale))

    def minus(self, other: Jackknife) -> ConfidenceInterval:
        """Difference of two statistics of paired samples, in the same groups.

        Raises:
            ValueError: The numbers of groups differ.
        """
        if self.left_out.shape != other.left_out.shape:
            raise ValueError(
                f"{len(self.left_out)} and {len(other.left_out)} groups: a paired difference "
                "needs the same groups of equally many samples"
            )
        return Jackknife(self.value - other.value, self.left_out - other.left_out).interval()


def share(successes: int, count: int) -> ConfidenceInterval:
    """Wilson's interval of a share of `count` samples, within [0, 1].

    Raises:
        ValueError: No samples, or more successes than samples.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes={successes} of count={count}: need 0 <= successes <= count")
    ends = stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="wilson")
    return ConfidenceInterval(successes / count, float(ends.low), float(ends.high))


def mean(values: NDArray[np.generic], seed: int = 0) -> ConfidenceInterval:
    """Bootstrap (BCa) interval of the mean of values (N,); of width 0 where all are equal.

    Raises:
        ValueError: Fewer than two values, or values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values has shape {values.shape}: need (N,), finite, N of at least 2")
    value = float(values.mean())
    if np.ptp(values) == 0:
        return ConfidenceInterval(value, value, value)
    ends = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=max(1, 5_000_000 // len(values)),
        # The correction takes N^2 operations, and many values leave nothing to correct.
        method="BCa" if len(values) <= 2000 else "percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return ConfidenceInterval(value, float(ends.low), float(ends.high))


def mean_difference(
    one: NDArray[np.generic], two: NDArray[np.generic], seed: int = 0
) -> ConfidenceInterval:
    """Bootstrap interval of the mean of `one - two`, both (N,), the k-th values paired.

    Raises:
        ValueError: The lengths differ; or as `mean`.
    """
    if np.shape(one) != np.shape(two):
        raise ValueError(
            f"values of shape {np.shape(one)} and {np.shape(two)}: a paired difference needs "
            "samples from the same noise, equally many"
        )
    return mean(np.asarray(one, dtype=np.float64) - np.asarray(two, dtype=np.float64), seed)


def random_groups(
    count: int, labels: Tensor | None = None, most: int = MAX_GROUPS, seed: int = 0
) -> Tensor:
    """Assign samples to at most `most` groups of sizes that differ by one at most.

    The order is random and fixed by `seed`; each class of `labels` is spread over the groups as
    evenly as possible, since the requested classes are not random.

    Returns:
        int64 (count,): the group of each sample, in 0 .. min(most, count) - 1.
    """
    if count < 2:
        raise ValueError(f"count={count}: a jackknife needs at least 2 samples")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if labels is not None:
        order = order[labels.cpu()[order].argsort(stable=True)]
    groups = torch.empty(count, dtype=torch.long)
    groups[order] = torch.arange(count) % min(most, count)
    return groups


def jackknife(
    statistic: Callable[[Tensor], float],
    groups: Tensor,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Jackknife:
    """Jackknife of a statistic, a function of the indices (int64, in order) of the samples used."""
    left_out = [
        statistic((groups != group).nonzero().squeeze(1)) for group in range(int(groups.max()) + 1)
    ]
    return Jackknife(statistic(torch.arange(len(groups))), np.array(left_out), bounds)


def pair_mean(
    x: Tensor,
    function: Callable[[Tensor, Tensor], Tensor],
    groups: Tensor,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Jackknife:
    """Mean over all pairs of different samples x (N, d), with its jackknife.

    The function is symmetric and maps (n, d), (N, d) to float64 (n, N).
    """
    sizes = torch.bincount(groups)
    sums = torch.zeros(len(sizes), len(sizes), dtype=torch.float64)
    for start in range(0, len(x), ROWS):
        matrix = function(x[start : start + ROWS], x)
        matrix.diagonal(start).zero_()
        columns = torch.zeros(len(matrix), len(sizes), dtype=torch.float64)
        columns.index_add_(1, groups, matrix)
        sums.index_add_(0, groups[start : start + ROWS], columns)
    total, count, rest = sums.sum(), len(x), len(x) - sizes
    left = (total - 2 * sums.sum(1) + sums.diagonal()) / (rest * (rest - 1))
    return Jackknife(float(total / (count * (count - 1))), left.numpy(), bounds)
