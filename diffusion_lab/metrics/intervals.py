"""95 % intervals of figures taken from N samples.

What is uncertain is the luck of the samples alone; real images (the training set, a reference) are
taken as they are. Three kinds of figures, three intervals:

* a share (`PerSample` of bools): Wilson's score interval (Wilson 1927). True value: the share
  among endlessly many samples.
* a mean (`PerSample` of numbers): the bias-corrected and accelerated bootstrap (Efron 1987). True
  value: the mean of endlessly many samples.
* any other statistic of the set (`Jackknife`): the delete-a-group jackknife (Kott 2001,
  "Delete-a-group jackknife", J. Official Statistics 17). The samples are dealt into g of about 50
  groups, T_j is the statistic without group j, and

      variance = (g - 1) / g  sum_j (T_j - mean T)^2,   T -+ t(g - 1) sqrt(variance)

  with Student's t. True value: the *expectation of T at this number of samples*, its bias
  included; a perfect sampler has that bias too, so compare with its value at the same number.
  `Jackknife.unbiased` removes the part of the bias that goes with 1 / N (Quenouille 1956):
  g T - (g - 1) mean T_j; its true value is the limit of endlessly many samples, up to the rest.

Coverage of the nominal 95 %, found by simulation (`tests/metrics/test_coverage.py`: 300 samples of
16 Gaussian features, 500 repeats, so give or take one point; true value: the mean of all repeats),
for a perfect sampler and for one that is shifted and too narrow:

    figure                perfect    worse
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

So most intervals are honest, some a few points short (mmd of poor samples), and they are too wide
for neighbours and for a distance near its least value, where a jackknife overestimates the
variance (Efron & Stein 1981). The bootstrap of 100 exponential values: 93 to 97 %.
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

LEVEL = 0.95
"""Share of all intervals that hold the true value."""
GROUPS = 50
"""Groups of a jackknife; fewer only where there are fewer samples."""
RESAMPLES = 2000
"""Draws of a bootstrap."""
FEWEST = 10
"""Samples below which no interval is given."""


class ConfidenceInterval(NamedTuple):
    """A figure and the ends of its 95 % interval, in the figure's unit."""

    value: float
    low: float
    high: float


class PerSample(NamedTuple):
    """A figure that is the mean of one number (or one yes or no) a sample.

    Attributes:
        values: ``(N,)``, bool for a share.
    """

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
        """Difference of the means of two sets whose k-th samples belong together.

        Raises:
            ValueError: the sets are not equally long.
        """
        return mean_difference(self.values, other.values)


class Jackknife(NamedTuple):
    """A statistic of a set, and what it is without each group.

    Attributes:
        value: the statistic of all samples, or its value without bias.
        left_out: ``(g,)``, the statistic without each group.
        bounds: the statistic's least and largest possible value; intervals are cut there.
    """

    value: float
    left_out: Array
    bounds: tuple[float, float] = (-np.inf, np.inf)

    def interval(self) -> ConfidenceInterval:
        """Value and interval, see the head of this file."""
        return _student(self.value, self.left_out, self.bounds)

    def unbiased(self) -> Jackknife:
        """The same without the part of the bias that goes with 1 / N; knows no bounds."""
        groups = len(self.left_out)
        value = groups * self.value - (groups - 1) * float(self.left_out.mean())
        return Jackknife(value, self.left_out)

    def over(self, scale: float) -> Jackknife:
        """The same in units of a positive number that is taken as exact."""
        low, high = self.bounds
        return Jackknife(self.value / scale, self.left_out / scale, (low / scale, high / scale))

    def minus(self, other: Jackknife) -> ConfidenceInterval:
        """Difference of two statistics whose k-th samples belong together, in the same groups.

        Raises:
            ValueError: the numbers of groups differ.
        """
        if self.left_out.shape != other.left_out.shape:
            raise ValueError(
                f"{len(self.left_out)} and {len(other.left_out)} groups: a paired difference "
                "needs the same groups of equally many samples"
            )
        return _student(self.value - other.value, self.left_out - other.left_out)


class Estimate(Protocol):
    """A figure that can say its interval."""

    @property
    def value(self) -> float:
        """The figure."""
        ...

    def interval(self) -> ConfidenceInterval:
        """With its interval."""
        ...

    def minus(self, other: Any) -> ConfidenceInterval:
        """Difference to the same figure of samples that belong together with these."""
        ...


def share(successes: int, count: int) -> ConfidenceInterval:
    """Wilson's interval of a share of `count` samples, within [0, 1].

    Raises:
        ValueError: no samples, or more successes than samples.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(f"successes={successes} of count={count}: need 0 <= successes <= count")
    found = stats.binomtest(successes, count).proportion_ci(LEVEL, method="wilson")
    return ConfidenceInterval(successes / count, float(found.low), float(found.high))


def mean(values: NDArray[np.generic], seed: int = 0) -> ConfidenceInterval:
    """Bootstrap (BCa) interval of the mean of ``values (N,)``; of no width where all are equal.

    Args:
        values: finite, N of at least 2.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two values, or values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values has shape {values.shape}: need (N,), finite, N of at least 2")
    value = float(values.mean())
    if np.ptp(values) == 0:
        return ConfidenceInterval(value, value, value)
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        batch=max(1, 5_000_000 // len(values)),
        # The correction takes N^2 operations, and nothing is left to correct for many values.
        method="BCa" if len(values) <= 2000 else "percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return ConfidenceInterval(value, float(found.low), float(found.high))


def mean_difference(
    one: NDArray[np.generic], two: NDArray[np.generic], seed: int = 0
) -> ConfidenceInterval:
    """Bootstrap interval of the mean of ``one - two``, both ``(N,)``, the k-th values paired.

    Raises:
        ValueError: lengths that differ, and as `mean`.
    """
    if np.shape(one) != np.shape(two):
        raise ValueError(
            f"values of shape {np.shape(one)} and {np.shape(two)}: a paired difference needs "
            "samples from the same noise, equally many"
        )
    return mean(np.asarray(one, dtype=np.float64) - np.asarray(two, dtype=np.float64), seed)


def deal(count: int, labels: Tensor | None = None, groups: int = GROUPS, seed: int = 0) -> Tensor:
    """Deal samples into groups of sizes that differ by at most one, in a fixed random order.

    Args:
        count: number of samples, at least 2.
        labels: int64 ``(count,)``; where given, each class is spread over the groups as evenly as
            can be, as the classes asked for are no matter of luck.
        groups: at most this many.
        seed: of the order.

    Returns:
        int64 ``(count,)``: the group of each sample, in ``0 .. min(groups, count) - 1``.
    """
    if count < 2:
        raise ValueError(f"count={count}: a jackknife needs at least 2 samples")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if labels is not None:
        order = order[labels.cpu()[order].argsort(stable=True)]
    dealt = torch.empty(count, dtype=torch.long)
    dealt[order] = torch.arange(count) % min(groups, count)
    return dealt


def jackknife(
    statistic: Callable[[Tensor], float],
    groups: Tensor,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Jackknife:
    """Jackknife of a statistic that is given as a function of the indices of the samples kept.

    Args:
        statistic: takes int64 indices, in order; called once for all and once a group.
        groups: ``(N,)`` as `deal` gives them.
        bounds: least and largest possible value.
    """
    left_out = [
        statistic((groups != group).nonzero().squeeze(1)) for group in range(int(groups.max()) + 1)
    ]
    return Jackknife(statistic(torch.arange(len(groups))), np.array(left_out), bounds)


def pair_mean(sums: Tensor, sizes: Tensor) -> tuple[float, Array]:
    """Mean of a symmetric function over all pairs of different samples, and without each group.

    Args:
        sums: float64 ``(g, g)``: sum of the function over pairs (i, k), i of the row's group, k of
            the column's, i = k left out.
        sizes: samples of each group ``(g,)``.
    """
    total, count = sums.sum(), sizes.sum()
    kept = count - sizes
    left = total - 2 * sums.sum(1) + sums.diagonal()
    return float(total / (count * (count - 1))), (left / (kept * (kept - 1))).numpy()


def _student(
    value: float, left_out: Array, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> ConfidenceInterval:
    groups = len(left_out)
    variance = (groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum()
    half = float(stats.t.ppf((1 + LEVEL) / 2, groups - 1) * np.sqrt(variance))
    return ConfidenceInterval(value, max(value - half, bounds[0]), min(value + half, bounds[1]))
