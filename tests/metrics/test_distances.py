"""Fréchet distance against closed forms and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from diffusion_lab.metrics.distances import Gaussian, fit_gaussian, frechet


def gaussian(seed, d, rank=None):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, rank or d))
    return Gaussian(rng.normal(size=d), root @ root.T)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 2, *[st.floats(0, 4)] * 2), min_size=1, max_size=8))
def test_independent_gaussians_have_a_closed_form(axes):
    """Diagonal covariances: |mu|^2 differences plus squared differences of standard deviations."""
    m1, m2, s1, s2 = np.array(axes).T
    got = frechet(Gaussian(m1, np.diag(s1**2)), Gaussian(m2, np.diag(s2**2)))
    assert got == pytest.approx(((m1 - m2) ** 2 + (s1 - s2) ** 2).sum(), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_agrees_with_the_matrix_square_root(seed, d):
    a, b = gaussian(seed, d), gaussian(seed + 1, d)
    root = sqrtm(a.covariance @ b.covariance)
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(
        a.covariance + b.covariance - 2 * root.real
    )
    assert frechet(a, b) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_symmetric_zero_to_itself_and_invariant_under_rotation(seed, d, rank):
    a, b = gaussian(seed, d, min(rank, d)), gaussian(seed + 1, d)
    scale = np.trace(a.covariance) + np.trace(b.covariance)
    assert frechet(a, b) == pytest.approx(frechet(b, a), abs=1e-6 * scale)
    # Square roots of eigenvalues that are 0 up to rounding leave about sqrt(1e-16)
    assert frechet(a, a) == pytest.approx(0, abs=1e-6 * scale)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    turned = [Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (a, b)]
    assert frechet(*turned) == pytest.approx(frechet(a, b), abs=1e-6 * scale)


def test_a_shift_of_samples_costs_its_square():
    x = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    near, far = fit_gaussian(x), fit_gaussian(x.double() + 1e4)
    assert frechet(near, fit_gaussian(x + 3)) == pytest.approx(20 * 9, rel=1e-6)
    assert frechet(far, far) == pytest.approx(0, abs=1e-6)


def test_fewer_samples_than_features():
    x = np.random.default_rng(0).normal(size=(5, 40))
    fitted = fit_gaussian(x)
    assert np.allclose(fitted.covariance, np.cov(x.T))
    many = fit_gaussian(np.random.default_rng(1).normal(size=(500, 40)))
    assert 0 < frechet(fitted, many) < 100


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (np.zeros((1, 3)), r"\(1, 3\)"),
        (np.zeros(3), r"\(3,\)"),
        (np.full((4, 3), np.nan), "not finite"),
        (np.zeros((4, 2)), "size 2 and 3|size 3 and 2"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(bad, named):
    with pytest.raises(ValueError, match=named):
        frechet(fit_gaussian(bad), fit_gaussian(np.eye(3)))
