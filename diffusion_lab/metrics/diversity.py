r"""How different samples are from each other: as real images are, or are they all one image?

The total variance of images x_1 .. x_N is that of each pixel, summed: sum_p var(x_p), with N - 1 in
the denominator. It is half the mean squared distance of two of them.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    if labels is None:
        return _ratio(total_variance(samples), total_variance(real))
    if real_labels is None:
        raise ValueError("real_labels=None: the variance within classes needs those of real images")
    ours = theirs = 0.0
    for label in labels.unique():
        chosen, matching = samples[labels == label], real[real_labels == label]
        if len(chosen) > 1 and len(matching) > 1:
            ours += len(chosen) * total_variance(chosen)
            theirs += len(chosen) * total_variance(matching)
    return _ratio(ours, theirs) if theirs else float("nan")


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


def _ratio(ours: float, theirs: float) -> float:
    if not theirs > 0:
        raise ValueError("the real images are all the same: there is no variance to compare with")
    return ours / theirs
