r"""How different samples are from each other: as real images are, or are they all one image?

The total variance of images x_1 .. x_N is that of each pixel, summed: sum_p var(x_p), with N - 1 in
the denominator. It is half the mean squared distance of two of them.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from diffusion_lab.metrics.intervals import Array, Jackknife, pair_mean
from diffusion_lab.metrics.kernels import pair_sums


def remaining_variance(
    samples: Tensor,
    real: Tensor,
    labels: Tensor | None = None,
    real_labels: Tensor | None = None,
) -> float:
    """Total variance of samples over that of real images: about 1 if good, 0 if all are one image.

    With labels it is the variance *within* classes, each class weighted as it occurs in `labels`:
    a model that knows one average image a class would else seem diverse by its classes alone.

    Args:
        samples: float ``(N, *)``, N of at least 2.
        real: float ``(M, *)``, M of at least 2, of the same range.
        labels: int64 ``(N,)``, the classes asked for; None for samples without a class.
        real_labels: int64 ``(M,)``, needed with `labels`.

    Returns:
        The ratio, at least 0. Classes with fewer than two samples, or than two real images, are
        left out; nan where that leaves none.

    Raises:
        ValueError: labels without `real_labels`, fewer than two images, or real images that are
            all the same.
    """
    real_variances = _real_variances(real, labels, real_labels)
    if labels is None:
        return _ratio(total_variance(samples), real_variances[-1])
    ours = theirs = 0.0
    for label, variance in real_variances.items():
        chosen = samples[labels == label]
        if len(chosen) > 1:
            ours += len(chosen) * total_variance(chosen)
            theirs += len(chosen) * variance
    return _ratio(ours, theirs) if theirs else float("nan")


def remaining_variance_jackknife(
    samples: Tensor,
    real: Tensor,
    labels: Tensor | None,
    real_labels: Tensor | None,
    groups: Tensor,
) -> Jackknife:
    """`remaining_variance` with its jackknife; the real images' variance is taken as exact.

    Args:
        samples: as there, as all further arguments but the last.
        real: see there.
        labels: see there.
        real_labels: see there.
        groups: int64 ``(N,)``, see `intervals.deal`.
    """
    real_variances = _real_variances(real, labels, real_labels)
    x = samples.flatten(1).double()
    number, value = int(groups.max()) + 1, remaining_variance(samples, real, labels, real_labels)
    ours, theirs = torch.zeros(2, number, dtype=torch.float64)
    for label, variance in real_variances.items():
        chosen = torch.ones(len(x), dtype=torch.bool) if labels is None else labels == label
        if not chosen.any():
            continue
        left, count = _variance_left(x[chosen], groups[chosen], number)
        ours += torch.where(count > 1, count * left, 0.0)
        theirs += torch.where(count > 1, count * variance, 0.0)
    return Jackknife(value, (ours / theirs).numpy(), (0.0, torch.inf))


def _variance_left(x: Tensor, groups: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Total variance of ``x (N, P)`` without each group, and how many are left, both ``(g,)``."""
    x = x - x.mean(0)
    sums = torch.zeros(number, x.shape[1], dtype=x.dtype).index_add_(0, groups, x)
    squares = torch.zeros(number, dtype=x.dtype).index_add_(0, groups, x.square().sum(1))
    count = len(x) - torch.bincount(groups, minlength=number)
    spread = squares.sum() - squares - (sums.sum(0) - sums).square().sum(1) / count.clamp(min=1)
    return spread / (count - 1).clamp(min=1), count


def _real_variances(
    real: Tensor, labels: Tensor | None, real_labels: Tensor | None
) -> dict[int, float]:
    """Total variance of real images of each class asked for; under -1 that of all, without."""
    if labels is None:
        return {-1: total_variance(real)}
    if real_labels is None:
        raise ValueError("real_labels=None: the variance within classes needs those of real images")
    sets = {label: real[real_labels == label] for label in labels.unique().tolist()}
    return {label: total_variance(x) for label, x in sets.items() if len(x) > 1}


def total_variance(x: Tensor) -> float:
    """Unbiased variance of each pixel of ``x (N, *)``, summed over pixels; N of at least 2."""
    if len(x) < 2:
        raise ValueError(f"a variance needs at least 2 images; there is {len(x)}")
    return float(x.flatten(1).var(dim=0).double().sum())


def pairwise_distance(samples: Tensor, most: int = 1000) -> float:
    """Mean Euclidean distance of two different samples, over all pairs of the first `most`.

    Args:
        samples: float ``(N, *)``, N of at least 2.
        most: how many samples are looked at; pairs grow with the square.
    """
    if len(samples) < 2:
        raise ValueError(f"a distance needs at least 2 samples; there is {len(samples)}")
    return float(torch.pdist(samples[:most].flatten(1).float()).mean())


def pairwise_jackknife(samples: Tensor, groups: Tensor) -> Jackknife:
    """`pairwise_distance` of all samples ``(N, *)``, with its jackknife.

    Args:
        samples: float, N of at least 2 outside each group.
        groups: int64 ``(N,)``, see `intervals.deal`.
    """
    sums = pair_sums(samples.flatten(1).double(), torch.cdist, groups)
    value, left = pair_mean(sums, torch.bincount(groups))
    return Jackknife(value, left, (0.0, torch.inf))


def vendi(features: Tensor, groups: Tensor) -> Jackknife:
    """Vendi score: the effective number of different samples (Friedman & Dieng 2023, eq. 1).

    The exponential of the entropy of the eigenvalues of K / N, K the cosine similarities of
    features; these eigenvalues are also those of the (D, D) matrix sum_n f_n f_n^T / N. Between 1
    (all alike) and min(N, D). It grows with N: compare with real images of the same number.

    Args:
        features: ``(N, D)``; a vector of length 0 is similar to nothing, itself included.
        groups: int64 ``(N,)``, see `intervals.deal`.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    count = int(groups.max()) + 1
    outer = torch.stack([f.T @ f for f in (unit[groups == group] for group in range(count))])
    total, sizes = outer.sum(0), torch.bincount(groups)
    left = _effective((total - outer) / (len(unit) - sizes).view(-1, 1, 1))
    return Jackknife(float(_effective(total / len(unit))), left, (1.0, np.inf))


def _effective(matrices: Tensor) -> Array:
    """Exponential of the entropy of the eigenvalues of symmetric matrices ``(..., D, D)``."""
    eigenvalues = np.linalg.eigvalsh(matrices.numpy()).clip(0)  # on small ones faster than torch's
    return np.exp(entr(eigenvalues).sum(-1))


def _ratio(ours: float, theirs: float) -> float:
    if not theirs > 0:
        raise ValueError("the real images are all the same: there is no variance to compare with")
    return ours / theirs
