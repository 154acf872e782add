"""Distances between sets of feature vectors.

The Fréchet distance of two Gaussians (Dowson & Landau 1982; Heusel et al. 2017, eq. 6):

    FD = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

It is biased upward for few samples, by an amount that depends on their number: compare only
figures of the same number of samples, or better the ratio to real held-out images of that number.
The bias is nearly proportional to 1 / N (Chong & Forsyth 2020 extrapolate it away); the jackknife
removes that part of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.metrics.intervals import Jackknife, jackknife

Array = NDArray[np.float64]


class Gaussian(NamedTuple):
    """Mean ``(D,)`` and covariance ``(D, D)`` of a set of feature vectors, float64."""

    mean: Array
    covariance: Array


def fit_gaussian(features: Tensor | NDArray[np.floating]) -> Gaussian:
    """Mean and unbiased covariance of ``features (N, D)``.

    Raises:
        ValueError: fewer than two vectors, a wrong shape, or values that are not finite.
    """
    array = np.asarray(features, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2:
        raise ValueError(
            f"features has shape {array.shape}: a covariance needs (N, D) with N of at least 2"
        )
    if not np.isfinite(array).all():
        raise ValueError("features holds values that are not finite: the samples are not images")
    mean = array.mean(0)
    centred = array - mean
    return Gaussian(mean, centred.T @ centred / (len(array) - 1))


def frechet(
    a: Gaussian | Tensor | NDArray[np.floating], b: Gaussian | Tensor | NDArray[np.floating]
) -> float:
    """Fréchet distance of two sets of features ``(N, D)``, or of their fitted Gaussians.

    The trace of ``(C_a C_b)^(1/2)`` is the sum of the square roots of the eigenvalues of the
    symmetric matrix ``C_a^(1/2) C_b C_a^(1/2)``, so no complex matrix root is needed and
    singular covariances (fewer samples than features) are no special case.

    Returns:
        The squared 2-Wasserstein distance of the two Gaussians, at least 0.

    Raises:
        ValueError: the two feature spaces differ in size.
    """
    a = a if isinstance(a, Gaussian) else fit_gaussian(a)
    b = b if isinstance(b, Gaussian) else fit_gaussian(b)
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of size {a.mean.size} and {b.mean.size}: "
            "both sets must come from one network"
        )
    return _from_root(a, _root(a.covariance), b)


def frechet_jackknife(features: Tensor, reference: Gaussian, groups: Tensor) -> Jackknife:
    """Fréchet distance of features ``(N, D)`` to a reference, with its jackknife.

    Args:
        features: finite, N of at least 2 outside each group.
        reference: the real images' Gaussian, taken as exact.
        groups: int64 ``(N,)``, see `intervals.deal`.

    Returns:
        `interval()` is of the expectation at this N; `unbiased()` estimates the distance of
        endlessly many samples, and may be a little below 0 where that is small.

    Raises:
        ValueError: as `frechet`.
    """
    frechet(features, reference)  # refuses what does not fit
    array, root = np.asarray(features, dtype=np.float64), _root(reference.covariance)

    def distance(kept: Tensor) -> float:
        return _from_root(reference, root, fit_gaussian(array[kept.numpy()]))

    return jackknife(distance, groups, (0.0, np.inf))


def _root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def _from_root(a: Gaussian, root: Array, b: Gaussian) -> float:
    """The distance, given the square root of the first covariance."""
    cross = np.linalg.eigvalsh(root @ b.covariance @ root).clip(0)
    spread = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(cross).sum()
    return float(max(((a.mean - b.mean) ** 2).sum() + spread, 0.0))
