"""Diversity of samples, against closed forms."""

import math

import pytest
import torch

from diffusion_lab.metrics.diversity import pairwise_distance, remaining_variance, total_variance


def normal(count, std, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(count, 1, 6, 6, generator=generator)


def test_the_ratio_is_that_of_the_variances():
    real, samples = normal(20_000, 1.0), normal(20_000, 0.5, seed=1)
    assert remaining_variance(samples, real) == pytest.approx(0.25, rel=0.02)
    assert remaining_variance(real, real) == 1.0
    assert remaining_variance(real + 3, real) == pytest.approx(1.0, rel=1e-5)
    assert remaining_variance(real[:1].expand(50, -1, -1, -1), real) == 0.0


def test_the_total_variance_is_half_the_mean_squared_distance_of_a_pair():
    x = normal(40, 0.7)
    squared = torch.pdist(x.flatten(1)).square().mean()
    assert total_variance(x) == pytest.approx(float(squared) / 2, rel=1e-5)


def test_one_average_image_a_class_has_no_variance_left_within_classes():
    labels = torch.arange(10).repeat(50)
    means = normal(10, 3.0, seed=2)
    real = means[labels] + normal(500, 0.5)
    collapsed = means[labels]
    assert remaining_variance(collapsed, real) > 0.9, "the classes alone make it look diverse"
    assert remaining_variance(collapsed, real, labels, labels) == 0.0
    narrow = means[labels] + normal(500, 0.25, seed=3)
    assert remaining_variance(narrow, real, labels, labels) == pytest.approx(0.25, rel=0.05)


def test_classes_are_weighted_as_they_were_asked_for():
    """Class 0 varies by 4, class 1 by 1; samples of one class are compared with that class."""
    real = torch.cat([normal(5000, 2.0), normal(5000, 1.0, seed=1)])
    real_labels = torch.arange(2).repeat_interleave(5000)
    samples, labels = normal(5000, 2.0, seed=4), torch.zeros(5000, dtype=torch.long)
    assert remaining_variance(samples, real, labels, real_labels) == pytest.approx(1, rel=0.03)
    labels = torch.arange(5000)
    assert math.isnan(remaining_variance(samples, real, labels, real_labels)), "one of each class"


def test_pairwise_distance():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert pairwise_distance(corners) == pytest.approx((3 + 4 + 5) / 3)
    assert pairwise_distance(corners, most=2) == 3.0
    assert pairwise_distance(corners[:1].expand(5, 2)) == 0.0


def test_what_has_no_variance_is_refused():
    with pytest.raises(ValueError, match="all the same"):
        remaining_variance(normal(5, 1.0), torch.zeros(5, 1, 6, 6))
    with pytest.raises(ValueError, match="at least 2"):
        remaining_variance(normal(1, 1.0), normal(5, 1.0))
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_distance(normal(1, 1.0))
    with pytest.raises(ValueError, match="real_labels"):
        remaining_variance(normal(5, 1.0), normal(5, 1.0), torch.zeros(5))
