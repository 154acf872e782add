"""The figures of one set of samples, each with its interval and what a perfect sampler would get.

A figure X comes with ``X_low`` and ``X_high``, the ends of its 95 % interval (see `intervals` for
what that is), and ``X_real``: the mean of X over sets of as many test images of the same classes
(see `real_baseline`). The figures, by name (those of the second classifier end in 2, as ``fd2``):

* ``agreement``: share of samples read as the class asked for (`agreement`);
* ``fd``, ``fd_unbiased``: Fréchet distance to the training images, and its limit of endlessly many
  samples (`distances`); ``kd``: kernel distance (`kernels`);
* ``precision``, ``recall``, ``density``, ``coverage``: by nearest neighbours (`neighbours`);
* ``vendi``, ``remaining_variance``, ``pairwise_distance``: diversity (`diversity`);
* ``class_entropy``, ``class_variation``: classes of samples drawn without one (`classes`);
* ``nearest_ratio``, ``copied_share``, ``closer_probability``: memorisation (`memorisation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.agreement import agreement
from diffusion_lab.metrics.distances import frechet
from diffusion_lab.metrics.diversity import pairwise_distance
from diffusion_lab.metrics.features import FeatureSpace, RealImages, as_seen, features
from diffusion_lab.metrics.image_figures import Estimates, in_features, in_pixels, of_copies
from diffusion_lab.metrics.intervals import FEWEST, Estimate, share
from diffusion_lab.metrics.memorisation import Nearest
from diffusion_lab.metrics.real_baseline import RealDataBaseline, end_of
from diffusion_lab.pixels import from_bytes


class Scored(NamedTuple):
    """A set of samples with its scores.

    Attributes:
        figures: plain data by name, see the head of this file and `Scorer`.
        estimates: what `comparison` needs: the figures with what their intervals are made of.
        confusion: counts ``(K, K)``, row = asked, column = read; None without labels.
        nearest: the training image nearest to each sample; None where it was not looked for.
        labels: int64 ``(N,)``, the classes asked for, or None.
    """

    figures: dict[str, Any]
    estimates: Estimates
    confusion: Tensor | None
    nearest: Nearest | None
    labels: Tensor | None


class Scorer:
    """Scores sets of samples of one data set; what real images get is computed once a number.

    Args:
        feature_spaces: the first decides the figures without a number at the end of their name.
        real: the data set, for the figures in pixels and of classes; None leaves these out.
        held_out: distances of the test images, see `features.held_out_distances`; None leaves
            memorisation out.
    """

    def __init__(
        self,
        feature_spaces: Sequence[FeatureSpace],
        real: RealImages | None = None,
        held_out: Tensor | None = None,
    ) -> None:
        self.feature_spaces, self.real, self.held_out = feature_spaces, real, held_out
        self._baseline = RealDataBaseline(feature_spaces, real)

    def __call__(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """Score samples ``(N, C, H, W)``, nominally in [-1, 1], of the classes asked for ``(N,)``.

        The figures hold beside those above all of `score`; ``per_class_low`` and ``_high``;
        ``class_shares``: of the classes read; ``pairwise_distance_test``: of the first test
        images; of each classifier ``feature_space``, ``classifier_sha256`` and
        ``classifier_test_accuracy``.

        Raises:
            ValueError: fewer than 10 samples, or samples that are not finite.
        """
        figures = score(self.feature_spaces[0], samples, labels)  # refuses what cannot be scored
        if len(samples) < FEWEST:
            raise ValueError(
                f"num_samples={len(samples)}: figures with intervals need at least {FEWEST}, "
                "better 1000"
            )
        seen, labels = as_seen(samples), None if labels is None else labels.cpu()
        found = [in_features(one, features(one.net, seen), labels) for one in self.feature_spaces]
        estimates: Estimates = {}
        for number, one in enumerate(found):
            figures |= _identity(self.feature_spaces[number], end_of(number))
            estimates |= {name + end_of(number): e for name, e in one.estimates.items()}
        if figures["fd_count"] == len(seen):
            estimates["fd_ratio"] = found[0].fd.over(figures["fd_test"])
        near = None
        if self.real is not None:
            estimates |= in_pixels(seen, labels, self.real)
            test = from_bytes(self.real.test_images)
            figures["pairwise_distance_test"] = pairwise_distance(test)
            if self.held_out is not None:
                copies, near = of_copies(seen, labels, self.real, self.held_out)
                estimates |= copies
        figures |= flat_estimates(estimates, self._baseline(labels, len(seen)))
        confusion = found[0].confusion
        shares = found[0].shares
        if shares is not None:
            figures["class_shares"] = [round(value, 4) for value in shares.tolist()]
        figures |= {} if confusion is None else _per_class(confusion)
        return Scored(figures, estimates, confusion, near, labels)


@torch.no_grad()
def score(feature_space: FeatureSpace, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """The few figures that cost next to nothing and need no interval, as while a model trains.

    Args:
        feature_space: the classifier and the real images' features.
        samples: float ``(N, C, H, W)``, nominally in [-1, 1], N of at least 2.
        labels: int64 ``(N,)``, the classes asked for; None for samples without a class.

    Returns:
        Plain data. ``num_samples``: N; ``agreement``: share read as asked (None without labels);
        ``per_class``: the same by class, None where it was not asked for; ``fd``: Fréchet distance
        to the training images in the classifier's features; ``fd_test``: of the first ``fd_count``
        test images, whatever their class; ``fd_ratio``: that of the first ``fd_count`` samples over
        it, where ``fd_count`` is the smaller of N and the number of test images;
        ``classifier_test_accuracy``.

    Raises:
        ValueError: fewer than two samples, or samples that are not finite.
    """
    if len(samples) < 2:
        raise ValueError(f"num_samples={len(samples)}: a distance needs at least 2, better 1000")
    if not torch.isfinite(samples).all():
        raise ValueError("the samples hold values that are not finite: the model has diverged")
    found = features(feature_space.net, as_seen(samples))
    count = min(len(samples), len(feature_space.test_features))
    fd_test = frechet(feature_space.test_features[:count], feature_space.reference)
    result: dict[str, Any] = {
        "num_samples": len(samples),
        "agreement": None,
        "per_class": None,
        "fd": frechet(found, feature_space.reference),
        "fd_test": fd_test,
        "fd_count": count,
        "fd_ratio": frechet(found[:count], feature_space.reference) / fd_test,
        "classifier_test_accuracy": feature_space.test_accuracy,
    }
    if labels is not None and feature_space.reads_classes:
        outcome = agreement(feature_space.net.head(found), labels)
        result |= {"agreement": outcome.overall}
        result |= {"per_class": _per_class(outcome.confusion)["per_class"]}
    return result


def flat_estimates(
    estimates: Mapping[str, Estimate], real: Mapping[str, float]
) -> dict[str, float | None]:
    """Plain data of estimates: ``X``, ``X_low``, ``X_high`` and ``X_real``; None for no value."""
    result: dict[str, float | None] = {}
    for name, estimate in estimates.items():
        found = (*estimate.interval(), real.get(name, math.nan))
        for end, value in zip(("", "_low", "_high", "_real"), found, strict=True):
            result[name + end] = float(value) if math.isfinite(value) else None
    return result


def _identity(space: FeatureSpace, end: str) -> dict[str, Any]:
    return {
        f"feature_space{end}": f"FD-{space.name}",
        f"classifier{end}_sha256": space.sha256,
        f"classifier{end}_test_accuracy": space.test_accuracy,
    }


def _per_class(confusion: Tensor) -> dict[str, list[float | None]]:
    """Agreement by class, with intervals."""
    result: dict[str, list[float | None]] = {"": [], "_low": [], "_high": []}
    for right, asked in zip(confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True):
        found = share(right, asked) if asked else (None, None, None)
        for end, value in zip(result, found, strict=True):
            result[end].append(None if value is None else round(value, 4))
    return {f"per_class{end}": values for end, values in result.items()}
