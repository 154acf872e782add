"""How different samples are from each other: as real images are, or are they all one image?

The total variance of images x_1 .. x_N is that of each pixel, summed: sum_p var(x_p), with N - 1 in
the denominator. It is half the mean squared distance of two of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from diffusion_lab.metrics.intervals import Array, Jackknife, pair_mean


def remaining_variance(
    samples: Tensor,
    real: Tensor,
    labels: Tensor | None,
    real_labels: Tensor | None,
    groups: Tensor,
) -> Jackknife:
    """Total variance of samples over that of real images: about 1 if good, 0 if all are one image.

    With labels it is the variance *within* classes, each class weighted as it occurs in `labels`:
    otherwise a model that knows one average image of each class would seem diverse. The variance
    of the real images (M, *), of the same range, is taken as exact.

    Returns:
        The ratio, at least 0. Classes with fewer than two samples, or than two real images, are
        left out; nan where that leaves none.

    Raises:
        ValueError: Labels without `real_labels`, fewer than two images, or real images that are
            all the same.
    """
    number = int(groups.max()) + 1
    ours = theirs = 0.0
    ours_left, theirs_left = torch.zeros(2, number, dtype=torch.float64)
    for chosen, reference in _by_class(samples, real, labels, real_labels):
        count, variance = int(chosen.sum()), total_variance(reference)
        if count > 1:
            weight = count if labels is not None else 1
            ours += weight * total_variance(samples[chosen])
            theirs += weight * variance
        left, rest = _variance_left(samples[chosen], groups[chosen], number)
        ours_left += torch.where(rest > 1, rest * left, 0.0)
        theirs_left += torch.where(rest > 1, rest * variance, 0.0)
    if labels is None and not theirs > 0:
        raise ValueError("the real images are all the same: there is no variance to compare with")
    value = ours / theirs if theirs else float("nan")
    return Jackknife(value, (ours_left / theirs_left).numpy(), (0.0, torch.inf))


def _by_class(
    samples: Tensor, real: Tensor, labels: Tensor | None, real_labels: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each requested class: which samples are of it, and its real images; without labels all."""
    if labels is None:
        yield torch.ones(len(samples), dtype=torch.bool), real
        return
    if real_labels is None:
        raise ValueError("real_labels=None: the variance within classes needs those of real images")
    for label in labels.unique().tolist():
        reference = real[real_labels == label]
        if len(reference) > 1:
            yield labels == label, reference


def _variance_left(samples: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Total variance of samples (N, *) without each group, and how many are left, both (g,)."""
    x = samples.flatten(1).double()
    x = x - x.mean(0)
    sums = torch.zeros(number, x.shape[1], dtype=x.dtype).index_add_(0, groups, x)
    squares = torch.zeros(number, dtype=x.dtype).index_add_(0, groups, x.square().sum(1))
    rest = len(x) - torch.bincount(groups, minlength=number)
    spread = squares.sum() - squares - (sums.sum(0) - sums).square().sum(1) / rest.clamp(min=1)
    return spread / (rest - 1).clamp(min=1), rest


def total_variance(x: Tensor) -> float:
    """Unbiased variance of each pixel of x (N, *), summed over pixels; N of at least 2."""
    if len(x) < 2:
        raise ValueError(f"a variance needs at least 2 images; there is {len(x)}")
    return float(x.flatten(1).var(dim=0).double().sum())


def pairwise_distance(samples: Tensor, groups: Tensor) -> Jackknife:
    """Mean Euclidean distance of two different samples (N, *), over all pairs."""
    return pair_mean(samples.flatten(1).double(), torch.cdist, groups, (0.0, torch.inf))


def vendi(features: Tensor, groups: Tensor) -> Jackknife:
    """Vendi score: the effective number of different samples (Friedman & Dieng 2023, eq. 1).

    The exponential of the entropy of the eigenvalues of K / N, K the cosine similarities of
    features; these eigenvalues are also those of the (D, D) matrix sum_n f_n f_n^T / N. Between 1
    (all alike) and min(N, D). It grows with N: compare with real images of the same number. A
    vector of length 0 is similar to nothing, itself included.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    count = int(groups.max()) + 1
    outer = torch.stack([f.T @ f for f in (unit[groups == group] for group in range(count))])
    total, sizes = outer.sum(0), torch.bincount(groups)
    left = _effective_number((total - outer) / (len(unit) - sizes).view(-1, 1, 1))
    return Jackknife(float(_effective_number(total / len(unit))), left, (1.0, np.inf))


def _effective_number(matrices: Tensor) -> Array:
    """Exponential of the entropy of the eigenvalues of symmetric matrices (..., D, D)."""
    eigenvalues = np.linalg.eigvalsh(matrices.numpy()).clip(0)  # on small ones faster than torch's
    return np.exp(entr(eigenvalues).sum(-1))
