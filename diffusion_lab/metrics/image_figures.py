"""The figures of a set of images as estimates, each of which can say its interval.

Samples and the real images that stand for a perfect sampler go through the same two functions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.agreement import agreement
from diffusion_lab.metrics.classes import classes
from diffusion_lab.metrics.distances import frechet_jackknife
from diffusion_lab.metrics.diversity import (
    pairwise_jackknife,
    remaining_variance_jackknife,
    vendi,
)
from diffusion_lab.metrics.features import FeatureSpace, RealImages
from diffusion_lab.metrics.intervals import GROUPS, Estimate, Jackknife, PerSample, deal
from diffusion_lab.metrics.kernels import squared_mmd
from diffusion_lab.metrics.matching import weights_like
from diffusion_lab.metrics.memorisation import Nearest, memorisation, nearest_training_images
from diffusion_lab.metrics.neighbours import neighbours
from diffusion_lab.pixels import from_bytes

MOST_NEIGHBOURS = 2000
"""Samples, and real images, whose neighbours are looked at; time grows with the square."""
MOST_PAIRS = 1000
"""Samples whose distances from each other are taken."""

Estimates = dict[str, Estimate]
"""Figures by the name they have in results."""


class InFeatures(NamedTuple):
    """Outcome of `in_features`.

    Attributes:
        estimates: the figures.
        fd: the first of them, the Fréchet distance.
        confusion: counts ``(K, K)``, row = asked, column = read; None without labels.
        shares: of each class read ``(K,)``; None where the classifier reads no classes.
    """

    estimates: Estimates
    fd: Jackknife
    confusion: Tensor | None
    shares: Tensor | None


@torch.no_grad()
def in_features(
    feature_space: FeatureSpace, features: Tensor, labels: Tensor | None, most_groups: int = GROUPS
) -> InFeatures:
    """Figures in one classifier's features.

    Args:
        feature_space: the classifier, and real images' features.
        features: of the images ``(N, D)``, N of at least 10.
        labels: int64 ``(N,)``, the classes asked for; None for samples without a class.
        most_groups: of the jackknife; few will do where no interval is wanted.
    """
    groups = deal(len(features), labels, most_groups)
    fd = frechet_jackknife(features, feature_space.reference, groups)
    found: Estimates = {
        "fd": fd,
        "fd_unbiased": fd.unbiased(),
        "kd": squared_mmd(features, feature_space.kernel_reference, groups),
        "vendi": vendi(features, groups),
    }
    count = min(len(features), MOST_NEIGHBOURS)
    near = neighbours(
        features[:count],
        feature_space.kernel_reference.points[:count].float(),
        deal(count, None if labels is None else labels[:count], most_groups),
    )
    found |= near._asdict()
    if not feature_space.reads_classes:
        return InFeatures(found, fd, None, None)
    scores = feature_space.net.head(features)
    read = scores.argmax(1)
    of_classes = classes(read, feature_space.train_classes, groups)
    if labels is None:
        found |= {"class_entropy": of_classes.entropy, "class_variation": of_classes.variation}
        return InFeatures(found, fd, None, of_classes.shares)
    found["agreement"] = PerSample((read == labels.cpu()).numpy())
    return InFeatures(found, fd, agreement(scores, labels).confusion, of_classes.shares)


def in_pixels(
    images: Tensor, labels: Tensor | None, real: RealImages, most_groups: int = GROUPS
) -> Estimates:
    """How different images are from each other.

    Args:
        images: float ``(N, C, H, W)`` in [-1, 1], N of at least 10.
        labels: int64 ``(N,)``, the classes asked for, or None.
        real: the data set.
        most_groups: of the jackknife; few will do where no interval is wanted.
    """
    count = min(len(images), MOST_PAIRS)
    test, first = from_bytes(real.test_images), None if labels is None else labels[:count]
    groups = deal(len(images), labels, most_groups)
    return {
        "remaining_variance": remaining_variance_jackknife(
            images, test, labels, real.test_labels, groups
        ),
        "pairwise_distance": pairwise_jackknife(images[:count], deal(count, first, most_groups)),
    }


def of_copies(
    images: Tensor, labels: Tensor | None, real: RealImages, held_out: Tensor
) -> tuple[Estimates, Nearest]:
    """Figures of memorisation, and the nearest training image of each image.

    Args:
        images: float ``(N, C, H, W)`` in [-1, 1], in 256 greys.
        labels: int64 ``(N,)``, the classes asked for, or None.
        real: the data set.
        held_out: distances of the test images ``(M,)``, see `features.held_out_distances`.
    """
    near = nearest_training_images(images, real.images)
    weights = weights_like(labels, real.test_labels)
    found = memorisation(near.distance, held_out, weights, deal(len(images), labels))
    return {
        "nearest_ratio": found.ratio,
        "copied_share": found.near,
        "closer_probability": found.closer,
    }, near
