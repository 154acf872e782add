"""Sliced Wasserstein distance: closed forms, properties, and what a score says."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from diffusion_lab.metrics import points as module
from diffusion_lab.metrics.points import score_points, sliced_wasserstein


def cloud(n, seed=0, d=2):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(projections, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(projections, d, generator=generator, dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 5))
def test_a_shift_moves_every_projection_by_its_share(n, d, seed):
    x, shift = cloud(n, seed, d), 3 * cloud(1, seed + 100, d)[0]
    expected = (directions(64, d) @ shift).square().mean().sqrt()
    assert sliced_wasserstein(x, x + shift, 64) == pytest.approx(float(expected), abs=1e-12)


def test_a_shift_in_the_plane_is_its_length_over_root_two():
    x = cloud(50)
    found = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), projections=20_000)
    assert found == pytest.approx(5 / math.sqrt(2), rel=0.02)


def test_two_gaussians_of_different_width():
    # W2 of N(0, 1) and N(0, 9) along any direction is 3 - 1.
    assert sliced_wasserstein(cloud(20_000), 3 * cloud(20_000, 1)) == pytest.approx(2, rel=0.02)


def test_single_points_are_their_projected_distance_apart():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    expected = (directions(16, 2) @ torch.tensor([1.0, -2.0], dtype=torch.float64)).square()
    assert sliced_wasserstein(a, b, 16) == pytest.approx(float(expected.mean().sqrt()), abs=1e-12)


@given(st.integers(1, 30), st.integers(1, 30))
def test_symmetric_and_zero_on_itself(n, m):
    a, b = cloud(n, 1), cloud(m, 2)
    assert sliced_wasserstein(a, a) == 0
    assert sliced_wasserstein(a, b) == pytest.approx(sliced_wasserstein(b, a), abs=1e-12)
    assert sliced_wasserstein(a, b) > 0


@given(st.integers(1, 12), st.integers(1, 12))
def test_repeated_points_change_nothing_so_that_sizes_may_differ(n, m):
    a, b = cloud(n, 3), cloud(m, 4)
    equal = sliced_wasserstein(a.repeat_interleave(m, 0), b.repeat_interleave(n, 0))
    assert sliced_wasserstein(a, b) == pytest.approx(equal, abs=1e-12)


def test_on_a_line_of_ordered_points_it_is_scipys():
    # Every point of b lies one further right: W1 and W2 agree where all mass moves equally far.
    a = cloud(7, d=1)
    assert sliced_wasserstein(a, a + 1.5, 1) == pytest.approx(
        wasserstein_distance(a[:, 0], a[:, 0] + 1.5)
    )


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        (cloud(3), cloud(3, d=3), r"\(3, 2\) and \(3, 3\)"),
        (cloud(3)[:0], cloud(3), r"points=\(0, 2\)"),
        (cloud(3) * float("nan"), cloud(3), "diverged"),
        (cloud(3)[0], cloud(3)[0], r"points=\(2,\)"),
    ],
)
def test_what_has_no_distance_is_refused(a, b, named):
    with pytest.raises(ValueError, match=named):
        sliced_wasserstein(a, b)
    with pytest.raises(ValueError, match="projections=0"):
        sliced_wasserstein(cloud(3), cloud(3), projections=0)


def test_samples_of_the_same_distribution_score_about_one():
    figures = score_points(cloud(2000, 1).float(), cloud(20_000, 2), cloud(20_000, 3))
    assert list(figures) == ["num_samples", "sw_count", "sw", "sw_test", "sw_ratio"]
    assert figures["num_samples"] == figures["sw_count"] == 2000
    assert all(isinstance(value, int | float) for value in figures.values())
    assert figures["sw_ratio"] == figures["sw"] / figures["sw_test"]
    assert 0.6 < figures["sw_ratio"] < 1.6


def test_worse_samples_score_worse_in_order():
    real, held = cloud(20_000, 2), cloud(20_000, 3)
    ratios = [
        score_points(cloud(2000, 1) * scale, real, held)["sw_ratio"] for scale in (1.0, 1.3, 2.0)
    ]
    assert ratios[0] < 2 < ratios[1] < ratios[2]


def test_many_samples_are_scored_in_sets_of_one_size(monkeypatch):
    monkeypatch.setattr(module, "SET_SIZE", 500)
    real, held = cloud(5000, 2), cloud(5000, 3)
    samples = cloud(2000, 1)
    parts = [score_points(part, real, held)["sw"] for part in samples.split(500)]
    figures = score_points(samples, real, held)
    assert figures["sw"] == pytest.approx(sum(parts) / 4) and figures["sw_count"] == 500
    assert figures["num_samples"] == 2000


def test_more_samples_than_real_points_still_compare():
    figures = score_points(cloud(900, 1), cloud(400, 2), cloud(300, 3))
    assert math.isfinite(figures["sw_ratio"])
    with pytest.raises(ValueError, match="num_samples=1"):
        score_points(cloud(1), cloud(10), cloud(10))
    with pytest.raises(ValueError, match="diverged"):
        score_points(cloud(5) / 0.0, cloud(10), cloud(10))
