"""The figures of one set of samples, side by side with real images never trained on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.metrics.agreement import agreement
from diffusion_lab.metrics.classifier import to_float
from diffusion_lab.metrics.distances import frechet
from diffusion_lab.metrics.diversity import pairwise_distance, remaining_variance
from diffusion_lab.metrics.features import RealImages, Yardstick, as_seen, features


def score(
    yardstick: Yardstick,
    samples: Tensor,
    labels: Tensor | None,
    real: RealImages | None = None,
) -> dict[str, Any]:
    """Score samples with a yardstick.

    Args:
        yardstick: the classifier and the real images' features.
        samples: float ``(N, C, H, W)``, nominally in [-1, 1], N of at least 2.
        labels: int64 ``(N,)``, the classes asked for; None for samples without a class.
        real: the data set, for the figures of `diversity`; None leaves these out.

    Returns:
        Plain data. ``agreement``: share read as asked (None without labels), ``per_class``: the
        same by class; ``fd``: Fréchet distance of the samples to the training images in the
        classifier's features; ``fd_test``: of the first ``fd_count`` test images; ``fd_ratio``:
        the one over the other, both from the first ``fd_count`` images, where ``fd_count`` is the
        smaller of N and the number of test images; ``classifier_test_accuracy``.

    Raises:
        ValueError: fewer than two samples, or samples that are not finite.
    """
    if len(samples) < 2:
        raise ValueError(f"num_samples={len(samples)}: a distance needs at least 2, better 1000")
    if not torch.isfinite(samples).all():
        raise ValueError("the samples hold values that are not finite: the model has diverged")
    seen = as_seen(samples)
    sample_features = features(yardstick.net, seen)
    count = min(len(samples), len(yardstick.test_features))
    fd_test = frechet(yardstick.test_features[:count], yardstick.reference)
    fd_same = frechet(sample_features[:count], yardstick.reference)
    result: dict[str, Any] = {
        "num_samples": len(samples),
        "agreement": None,
        "per_class": None,
        "fd": frechet(sample_features, yardstick.reference),
        "fd_test": fd_test,
        "fd_count": count,
        "fd_ratio": fd_same / fd_test,
        "classifier_test_accuracy": yardstick.test_accuracy,
    }
    if labels is not None:
        with torch.no_grad():
            outcome = agreement(yardstick.net.head(sample_features), labels)
        result["agreement"] = outcome.overall
        result["per_class"] = [
            None if torch.isnan(share) else round(float(share), 4) for share in outcome.per_class
        ]
    return result if real is None else result | diversity(seen, labels, real)


def diversity(samples: Tensor, labels: Tensor | None, real: RealImages) -> dict[str, Any]:
    """How much samples differ from each other, beside the test images.

    Args:
        samples: float ``(N, C, H, W)`` in [-1, 1], N of at least 2.
        labels: int64 ``(N,)``, the classes asked for, or None.
        real: the data set.

    Returns:
        ``remaining_variance``: total pixel variance over that of the test images, within classes
        where there are labels (None where no class was asked for twice); ``pairwise_distance``:
        mean Euclidean distance of two samples; ``pairwise_distance_test``: of two test images.
    """
    test = to_float(real.test_images)
    remaining = remaining_variance(samples, test, labels, real.test_labels)
    return {
        "remaining_variance": None if math.isnan(remaining) else remaining,
        "pairwise_distance": pairwise_distance(samples),
        "pairwise_distance_test": pairwise_distance(test),
    }
