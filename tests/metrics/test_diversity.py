"""Diversity of samples, against closed forms and direct computation."""

import math

import pytest
import torch

from diffusion_lab.metrics.diversity import (
    pairwise_distance,
    remaining_variance,
    total_variance,
    vendi,
)
from diffusion_lab.metrics.intervals import jackknife, random_groups


def normal(count, std, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return std * torch.randn(count, 1, 6, 6, generator=generator)


def ratio(samples, real, labels=None, real_labels=None):
    groups = random_groups(len(samples), most=5)
    return remaining_variance(samples, real, labels, real_labels, groups).value


def test_the_ratio_is_that_of_the_variances():
    real, samples = normal(20_000, 1.0), normal(20_000, 0.5, seed=1)
    assert ratio(samples, real) == pytest.approx(0.25, rel=0.02)
    assert ratio(real, real) == 1.0
    assert ratio(real + 3, real) == pytest.approx(1.0, rel=1e-5)
    assert ratio(real[:1].expand(50, -1, -1, -1), real) == 0.0


def test_the_total_variance_is_half_the_mean_squared_distance_of_a_pair():
    x = normal(40, 0.7)
    squared = torch.pdist(x.flatten(1)).square().mean()
    assert total_variance(x) == pytest.approx(float(squared) / 2, rel=1e-5)


def test_one_average_image_a_class_has_no_variance_left_within_classes():
    labels = torch.arange(10).repeat(50)
    means = normal(10, 3.0, seed=2)
    real = means[labels] + normal(500, 0.5)
    collapsed = means[labels]
    assert ratio(collapsed, real) > 0.9, "the classes alone make it look diverse"
    assert ratio(collapsed, real, labels, labels) == 0.0
    narrow = means[labels] + normal(500, 0.25, seed=3)
    assert ratio(narrow, real, labels, labels) == pytest.approx(0.25, rel=0.05)


def test_classes_are_weighted_as_they_were_requested():
    """Class 0 varies by 4, class 1 by 1; samples of one class are compared with that class."""
    real = torch.cat([normal(5000, 2.0), normal(5000, 1.0, seed=1)])
    real_labels = torch.arange(2).repeat_interleave(5000)
    samples, labels = normal(5000, 2.0, seed=4), torch.zeros(5000, dtype=torch.long)
    assert ratio(samples, real, labels, real_labels) == pytest.approx(1, rel=0.03)
    labels = torch.arange(5000)
    assert math.isnan(ratio(samples, real, labels, real_labels)), "one of each class"


def test_pairwise_distance():
    corners = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert pairwise_distance(corners, random_groups(3)).value == pytest.approx((3 + 4 + 5) / 3)
    assert pairwise_distance(corners[:2], random_groups(2)).value == 3.0
    assert pairwise_distance(corners[:1].expand(5, 2), random_groups(5)).value == 0.0


def test_what_has_no_variance_is_refused():
    with pytest.raises(ValueError, match="all the same"):
        ratio(normal(5, 1.0), torch.zeros(5, 1, 6, 6))
    with pytest.raises(ValueError, match="at least 2"):
        ratio(normal(1, 1.0), normal(5, 1.0))
    with pytest.raises(ValueError, match="at least 2"):
        ratio(normal(5, 1.0), normal(1, 1.0))
    with pytest.raises(ValueError, match="real_labels"):
        ratio(normal(5, 1.0), normal(5, 1.0), torch.zeros(5))


def test_vendi_counts_different_samples():
    """Orthogonal vectors are all different; repeated, they are no more; weighted, fewer."""
    eye = torch.eye(8)
    assert vendi(eye, random_groups(8)).value == pytest.approx(8)
    assert vendi(3 * eye.repeat(5, 1), random_groups(40)).value == pytest.approx(8)
    assert vendi(eye[:1].expand(20, 8), random_groups(20)).value == pytest.approx(1)
    shares = torch.tensor([0.75, 0.25])
    uneven = torch.cat([eye[:1].expand(30, 8), eye[1:2].expand(10, 8)])
    expected = float((-(shares * shares.log()).sum()).exp())
    assert vendi(uneven, random_groups(40)).value == pytest.approx(expected)


def test_vendi_by_its_kernel_and_without_each_group():
    """The eigenvalues of the (N, N) kernel are those of the (D, D) matrix."""
    x, groups = normal(30, 1.0).flatten(1).double().abs(), random_groups(30, most=6)

    def direct(kept):
        unit = x[kept] / x[kept].norm(dim=1, keepdim=True)
        eigenvalues = torch.linalg.eigvalsh(unit @ unit.T / len(kept)).clamp(min=1e-30)
        return float((-(eigenvalues * eigenvalues.log()).sum()).exp())

    expected = jackknife(direct, groups)
    found = vendi(x, groups)
    assert found.value == pytest.approx(expected.value)
    assert found.left_out == pytest.approx(expected.left_out)


@pytest.mark.parametrize("with_classes", [True, False])
def test_what_is_without_each_group_is_what_the_others_give(with_classes):
    x, real, groups = normal(60, 1.0).double(), normal(50, 1.0, 1), random_groups(60, most=9)
    labels, real_labels = torch.arange(60) % 4, torch.arange(50) % 4
    if not with_classes:
        labels = real_labels = None

    def direct(kept):
        return ratio(x[kept], real, None if labels is None else labels[kept], real_labels)

    expected = jackknife(direct, groups)
    found = remaining_variance(x, real, labels, real_labels, groups)
    assert found.value == pytest.approx(expected.value)
    assert found.left_out == pytest.approx(expected.left_out)
    pairs = jackknife(lambda kept: float(torch.pdist(x[kept].flatten(1)).mean()), groups)
    assert pairwise_distance(x, groups).left_out == pytest.approx(pairs.left_out, rel=1e-5)
    assert pairwise_distance(x, groups).value == pytest.approx(pairs.value, rel=1e-5)
