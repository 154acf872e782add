"""Vendi score and the jackknives of diversity, against closed forms and direct computation."""

import pytest
import torch

from diffusion_lab.metrics.diversity import (
    pairwise_distance,
    pairwise_jackknife,
    remaining_variance,
    remaining_variance_jackknife,
    vendi,
)
from diffusion_lab.metrics.intervals import deal, jackknife


def images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)


def test_vendi_counts_different_samples():
    """Orthogonal vectors are all different; repeated, they are no more; weighted, fewer."""
    eye = torch.eye(8)
    assert vendi(eye, deal(8)).value == pytest.approx(8)
    assert vendi(3 * eye.repeat(5, 1), deal(40)).value == pytest.approx(8)
    assert vendi(eye[:1].expand(20, 8), deal(20)).value == pytest.approx(1)
    shares = torch.tensor([0.75, 0.25])
    uneven = torch.cat([eye[:1].expand(30, 8), eye[1:2].expand(10, 8)])
    expected = float((-(shares * shares.log()).sum()).exp())
    assert vendi(uneven, deal(40)).value == pytest.approx(expected)


def test_vendi_by_its_kernel_and_without_each_group():
    """The eigenvalues of the (N, N) kernel are those of the (D, D) matrix."""
    x, groups = images(30).flatten(1), deal(30, groups=6)

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
    x, real, groups = images(60), images(50, 1), deal(60, groups=9)
    labels, real_labels = torch.arange(60) % 4, torch.arange(50) % 4
    if not with_classes:
        labels = real_labels = None

    def direct(kept):
        chosen = None if labels is None else labels[kept]
        return remaining_variance(x[kept], real, chosen, real_labels)

    expected = jackknife(direct, groups)
    found = remaining_variance_jackknife(x, real, labels, real_labels, groups)
    assert found.value == pytest.approx(expected.value)
    assert found.left_out == pytest.approx(expected.left_out)
    pairs = jackknife(lambda kept: pairwise_distance(x[kept]), groups)
    assert pairwise_jackknife(x, groups).left_out == pytest.approx(pairs.left_out, rel=1e-5)
    assert pairwise_jackknife(x, groups).value == pytest.approx(pairs.value, rel=1e-5)
