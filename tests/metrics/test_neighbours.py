"""Precision, recall, density, coverage: by hand, and by the definition."""

import pytest
import torch

from diffusion_lab.metrics.distances import neighbours
from diffusion_lab.metrics.intervals import jackknife, random_groups


def cloud(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def direct(samples, real):
    """The four metrics as their papers define them, one point at a time."""

    def radius(points, k):
        return [sorted(float((p - q).norm()) for q in points)[k] for p in points]  # [0]: itself

    three, five, own = radius(real, 3), radius(real, 5), radius(samples, 3)
    d = [[float((s - r).norm()) for r in real] for s in samples]
    n, m = len(samples), len(real)
    return (
        sum(any(d[i][j] <= three[j] for j in range(m)) for i in range(n)) / n,
        sum(any(d[i][j] <= own[i] for i in range(n)) for j in range(m)) / m,
        sum(d[i][j] <= five[j] for i in range(n) for j in range(m)) / (5 * n),
        sum(any(d[i][j] <= five[j] for i in range(n)) for j in range(m)) / m,
    )


def test_the_metrics_are_those_of_the_definitions():
    samples, real, groups = cloud(40) * 0.8 + 0.5, cloud(35, seed=1), random_groups(40, most=8)
    found = neighbours(samples, real, groups)
    assert [one.value for one in found] == pytest.approx(direct(samples, real))
    for number, one in ((1, found.recall), (3, found.coverage)):
        left = jackknife(lambda kept, k=number: direct(samples[kept], real)[k], groups).left_out
        assert one.left_out == pytest.approx(left)


def test_sets_far_apart_and_sets_that_are_one():
    real, groups = cloud(60), random_groups(60)
    apart = neighbours(real + 100, real, groups)
    assert [one.value for one in apart] == [0, 0, 0, 0]
    same = neighbours(real, real, groups)
    assert [same.precision.value, same.recall.value, same.coverage.value] == [1, 1, 1]
    assert same.density.value == pytest.approx(6 / 5), "each ball holds its middle and 5 others"


def test_one_image_drawn_again_and_again_is_precise_and_recalls_nothing():
    real = cloud(60)
    found = neighbours(real[:1].expand(60, 3), real, random_groups(60))
    assert found.precision.value == 1.0 and found.recall.value == 1 / 60
    assert found.coverage.value < 0.3


@pytest.mark.parametrize("shapes", [((6, 3), (50, 3)), ((50, 3), (5, 3)), ((50, 3), (50, 4))])
def test_too_few_and_other_spaces_are_refused(shapes):
    with pytest.raises(ValueError, match="more than 5"):
        neighbours(torch.rand(shapes[0]), torch.rand(shapes[1]), random_groups(shapes[0][0]))
