"""Intervals: closed forms, and what must be refused."""

import numpy as np
import pytest
import torch
from scipy import stats

from diffusion_lab.metrics.intervals import (
    Jackknife,
    PerSample,
    jackknife,
    mean,
    mean_difference,
    pair_mean,
    random_groups,
    share,
)


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (10, 10), (97, 100), (1, 3)])
def test_a_share_has_wilsons_interval(successes, count):
    z, p = stats.norm.ppf(0.975), successes / count
    middle = (p + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    found = share(successes, count)
    assert found == pytest.approx((p, max(middle - half, 0), min(middle + half, 1)), abs=1e-9)
    values = np.arange(count) < successes
    assert PerSample(values).interval() == found


@pytest.mark.parametrize(("successes", "count"), [(1, 0), (-1, 3), (4, 3)])
def test_impossible_shares_are_refused(successes, count):
    with pytest.raises(ValueError, match=f"successes={successes}"):
        share(successes, count)


def test_a_mean_has_nearly_students_interval():
    for count in (400, 4000):  # by the bias-corrected bootstrap, and by percentiles
        values = np.random.default_rng(0).normal(size=count)
        half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5
        found = mean(values)
        assert found.value == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx(
            (found.value - half, found.value + half), abs=0.12 * half
        )
        assert mean(values) == found, "seeded"
    assert mean(np.full(5, 2.0)) == (2, 2, 2)
    with pytest.raises(ValueError, match="finite"):
        mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"\(1,\)"):
        mean(np.ones(1))


def test_the_jackknife_of_a_mean_is_the_textbooks():
    """One sample a group: the variance of the mean is s^2 / n, and there is no bias."""
    x = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = jackknife(lambda kept: float(x[kept].mean()), random_groups(50))
    half = stats.t.ppf(0.975, 49) * float(x.std()) / 50**0.5
    low, high = float(x.mean()) - half, float(x.mean()) + half
    assert found.interval() == pytest.approx((float(x.mean()), low, high))
    assert found.unbiased().value == pytest.approx(float(x.mean()))


def test_the_jackknife_takes_the_bias_off_a_variance():
    """The variance with N in the denominator is biased by 1 / N, exactly."""
    x = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = jackknife(
        lambda kept: float(x[kept].var(unbiased=False)), random_groups(40), (0, np.inf)
    )
    assert found.unbiased().value == pytest.approx(float(x.var()))
    assert found.value == pytest.approx(float(x.var(unbiased=False)))


def test_intervals_are_cut_at_what_is_possible():
    found = Jackknife(0.99, np.array([0.9, 1.0, 0.95]), (0.0, 1.0))
    assert found.interval().high == 1.0 and found.interval().low > 0
    scaled = found.over(2.0)
    assert scaled.interval() == pytest.approx([end / 2 for end in found.interval()])


def test_groups_are_even_and_hold_all_classes():
    labels = torch.arange(1000) % 10
    groups = random_groups(1000, labels)
    assert torch.bincount(groups).tolist() == [20] * 50
    table = torch.bincount(groups * 10 + labels, minlength=500)
    assert table.unique().tolist() == [2], "two of each class in each group"
    assert torch.equal(groups, random_groups(1000, labels)) and not torch.equal(
        groups, random_groups(1000)
    )
    sizes = torch.bincount(random_groups(77))
    assert len(sizes) == 50 and set(sizes.tolist()) == {1, 2}
    assert random_groups(12).sort().values.tolist() == list(range(12))
    with pytest.raises(ValueError, match="count=1"):
        random_groups(1)


def test_means_over_pairs_without_each_group():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(30, 30, dtype=torch.float64, generator=generator)
    matrix = matrix + matrix.T
    matrix.fill_diagonal_(0)
    groups = random_groups(30, most=7)
    index = torch.arange(30).unsqueeze(1)
    found = pair_mean(index, lambda a, b: matrix[a[:, 0]][:, b[:, 0]], groups)

    def direct(kept):
        return float(matrix[kept][:, kept].sum() / (len(kept) * (len(kept) - 1)))

    expected = jackknife(direct, groups)
    assert found.value == pytest.approx(expected.value)
    assert found.left_out == pytest.approx(expected.left_out)


def test_pairs_that_share_their_luck_differ_sharply():
    rng = np.random.default_rng(0)
    luck = rng.normal(size=500)
    one, two = luck + 0.1, luck + 0.01 * rng.normal(size=500)
    paired, apart = mean_difference(one, two), mean_difference(one, rng.permutation(two))
    assert paired.value == pytest.approx(apart.value)
    assert paired.low > 0 and apart.low < 0 and paired.high < apart.high
    groups = random_groups(500)
    jack = [
        jackknife(lambda kept, x=x: float(np.median(x[kept.numpy()])), groups) for x in (one, two)
    ]
    difference = jack[0].minus(jack[1])
    assert difference.low > 0 and jack[0].interval().low < jack[1].interval().high
    bools = PerSample(one > 0).minus(PerSample(two > 0))
    assert bools.value == pytest.approx((one > 0).mean() - (two > 0).mean())


def test_what_is_not_paired_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        mean_difference(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="3 and 4 groups"):
        Jackknife(0, np.ones(3)).minus(Jackknife(0, np.ones(4)))
