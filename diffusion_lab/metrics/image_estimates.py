"""The metrics of a set of images as estimates, each of which has an interval.

Samples and the real images of the baseline go through the same two functions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.classes import class_shares, confusion_matrix
from diffusion_lab.metrics.distances import frechet_jackknife, neighbours, squared_mmd
from diffusion_lab.metrics.diversity import pairwise_distance, remaining_variance, vendi
from diffusion_lab.metrics.features import FeatureSpace, RealImages
from diffusion_lab.metrics.intervals import (
    MAX_GROUPS,
    Estimate,
    Jackknife,
    PerSample,
    random_groups,
)
from diffusion_lab.metrics.memorisation import (
    Nearest,
    memorisation,
    nearest_training_images,
    weights_like,
)
from diffusion_lab.pixels import from_bytes

MOST_NEIGHBOURS = 2000
"""Samples, and real images, whose neighbours are searched; time grows with the square."""
MOST_PAIRS = 1000
"""Samples whose pairwise distances are computed."""

Estimates = dict[str, Estimate]
"""Estimates by the name of their metric."""


class InFeatures(NamedTuple):
    """Outcome of `in_features`.

    Attributes:
        estimates: The metrics.
        fd: The first of them, the Fréchet distance.
        confusion: Counts (K, K), row = requested class, column = predicted; None without labels.
        shares: Of each predicted class (K,); None where the classifier predicts no classes.
    """

    estimates: Estimates
    fd: Jackknife
    confusion: Tensor | None = None
    shares: Tensor | None = None


@torch.no_grad()
def in_features(
    space: FeatureSpace, features: Tensor, labels: Tensor | None, most_groups: int = MAX_GROUPS
) -> InFeatures:
    """Metrics of images by their features (N, D), N of at least 10.

    A jackknife with few groups is enough where no interval is needed.
    """
    groups = random_groups(len(features), labels, most_groups)
    fd = frechet_jackknife(features, space.reference, groups)
    count = min(len(features), MOST_NEIGHBOURS)
    near = neighbours(
        features[:count],
        space.kernel_reference.points[:count].float(),
        random_groups(count, None if labels is None else labels[:count], most_groups),
    )
    estimates: Estimates = {
        "fd": fd,
        "fd_unbiased": fd.unbiased(),
        "kd": squared_mmd(features, space.kernel_reference, groups),
        "vendi": vendi(features, groups),
        **near._asdict(),
    }
    if not space.predicts_classes:
        return InFeatures(estimates, fd)
    scores = space.net.head(features)
    predicted = scores.argmax(1)
    classes = class_shares(predicted, space.train_classes, groups)
    if labels is None:
        estimates |= {"class_entropy": classes.entropy, "class_variation": classes.variation}
        return InFeatures(estimates, fd, shares=classes.shares)
    estimates["agreement"] = PerSample((predicted == labels.cpu()).numpy())
    return InFeatures(estimates, fd, confusion_matrix(scores, labels), classes.shares)


def in_pixels(
    images: Tensor, labels: Tensor | None, real: RealImages, most_groups: int = MAX_GROUPS
) -> Estimates:
    """Metrics of how different images (N, C, H, W) in [-1, 1] are from each other."""
    count, test = min(len(images), MOST_PAIRS), from_bytes(real.test_images)
    first = random_groups(count, None if labels is None else labels[:count], most_groups)
    groups = random_groups(len(images), labels, most_groups)
    return {
        "remaining_variance": remaining_variance(images, test, labels, real.test_labels, groups),
        "pairwise_distance": pairwise_distance(images[:count], first),
    }


def of_copies(
    images: Tensor, labels: Tensor | None, real: RealImages, held_out: Tensor
) -> tuple[Estimates, Nearest]:
    """Metrics of memorisation, and the nearest training image of each image.

    The images (N, C, H, W) are quantised; `held_out` is `features.held_out_distances`.
    """
    near = nearest_training_images(images, real.images)
    weights = weights_like(labels, real.test_labels)
    outcome = memorisation(near.distance, held_out, weights, random_groups(len(images), labels))
    return {
        "nearest_ratio": outcome.ratio,
        "copied_share": outcome.near,
        "closer_probability": outcome.closer,
    }, near
