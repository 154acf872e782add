"""Maximum mean discrepancy: closed forms, the direct sum, torchmetrics."""

import math

import pytest
import torch

from diffusion_lab.metrics import distances, intervals
from diffusion_lab.metrics.distances import cubic, gaussian_kernel, kernel_reference, squared_mmd
from diffusion_lab.metrics.intervals import jackknife, random_groups


def cloud(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direct(x, y, kernel):
    """The formula, with sums over all pairs of different points."""
    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (n * (n - 1))
    real = (kernel(y, y).sum() - kernel(y, y).diagonal().sum()) / (m * (m - 1))
    return float(within + real - 2 * kernel(x, y).mean())


def test_the_value_and_what_is_without_each_group_are_the_formula():
    x, y, groups = cloud(70, 5) + 0.3, cloud(60, 5, 1), random_groups(70)
    for kernel in (cubic, gaussian_kernel(y)):
        found = squared_mmd(x, kernel_reference(y, kernel), groups)
        expected = jackknife(lambda kept, k=kernel: direct(x[kept], y, k), groups)
        assert found.value == pytest.approx(expected.value, abs=1e-10)
        assert found.left_out == pytest.approx(expected.left_out, abs=1e-10)


def test_more_rows_than_are_in_memory_at_once(monkeypatch):
    x, y = cloud(70, 3), cloud(50, 3, 1)
    whole = squared_mmd(x, kernel_reference(y), random_groups(70))
    for module in (intervals, distances):
        monkeypatch.setattr(module, "ROWS", 16)
    parts = squared_mmd(x, kernel_reference(y), random_groups(70))
    assert parts.value == pytest.approx(whole.value)
    assert parts.left_out == pytest.approx(whole.left_out)


def test_agrees_with_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    x, y = cloud(80, 6) + 0.5, cloud(80, 6, 1)
    expected = float(poly_mmd(x, y, degree=3, gamma=None, coef=1.0))
    assert squared_mmd(x, kernel_reference(y), random_groups(80)).value == pytest.approx(expected)


def test_the_cubic_kernel_sees_a_shift_as_in_closed_form():
    """In one dimension E k is a polynomial of the first three moments: MMD^2 is a sum of squares.

    (x y + 1)^3 has the features x^3, sqrt(3) x^2, sqrt(3) x, 1. N(s, 1) and N(0, 1) differ by
    s^3 + 3 s, s^2 and s in the first three moments.
    """
    s = 0.7
    expected = (s**3 + 3 * s) ** 2 + 3 * s**4 + 3 * s**2
    found = squared_mmd(
        cloud(20_000, 1) + s, kernel_reference(cloud(5000, 1, 1)), random_groups(20_000)
    )
    assert found.value == pytest.approx(expected, rel=0.1)


def test_sets_of_one_distribution_are_0_apart_on_average():
    """Sixty pairs of sets: the mean is 0 within four standard errors, some values are negative."""
    references = [kernel_reference(cloud(100, 4, 1000 + k)) for k in range(60)]
    groups = random_groups(80)
    found = torch.tensor([squared_mmd(cloud(80, 4, k), references[k], groups).value
                          for k in range(60)])  # fmt: skip
    assert abs(float(found.mean())) < 4 * float(found.std()) / math.sqrt(60)
    assert (found < 0).any()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="same dimension"):
        squared_mmd(cloud(20, 3), kernel_reference(cloud(20, 4)), random_groups(20))
    with pytest.raises(ValueError, match="at least 2"):
        kernel_reference(cloud(1, 3))
    with pytest.raises(ValueError, match="no bandwidth"):
        gaussian_kernel(torch.zeros(10, 2))
