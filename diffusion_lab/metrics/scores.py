"""The scores of one set of samples, each with its interval and its value for real data.

A metric X comes with `X_low` and `X_high`, the ends of its 95 % interval (see `intervals` for its
meaning), and `X_real`: the mean of X over sets of as many test images of the same classes (see
`real_baseline`). The metrics, by name (those of the second classifier end in 2, as `fd2`):

* `agreement`: share of samples whose predicted class is the requested one (`classes`);
* `fd`, `fd_unbiased`: Fréchet distance to the training images, and its limit for infinitely many
  samples; `kd`: kernel distance (`distances`);
* `precision`, `recall`, `density`, `coverage`: by nearest neighbours (`distances`);
* `vendi`, `remaining_variance`, `pairwise_distance`: diversity (`diversity`);
* `class_entropy`, `class_variation`: classes of samples drawn without one (`classes`);
* `nearest_ratio`, `copied_share`, `closer_probability`: memorisation (`memorisation`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.classes import confusion_matrix
from diffusion_lab.metrics.distances import fit_gaussian, frechet
from diffusion_lab.metrics.features import FeatureSpace, RealImages, features_of, quantised
from diffusion_lab.metrics.image_estimates import Estimates, in_features, in_pixels, of_copies
from diffusion_lab.metrics.intervals import FEWEST, Estimate, share
from diffusion_lab.metrics.memorisation import Nearest
from diffusion_lab.metrics.real_baseline import RealDataBaseline, suffix
from diffusion_lab.pixels import from_bytes

FIRST_PAIRS = 1000
"""Test images whose pairwise distances are computed."""


class Scored(NamedTuple):
    """A set of samples with its scores.

    Attributes:
        scores: Plain data by name, see the head of this file and `Scorer`.
        estimates: The metrics with what their intervals are made of, for `compare`.
        confusion: Counts (K, K), row = requested class, column = predicted; None without labels.
        nearest: The training image nearest to each sample; None where it was not searched.
        labels: int64 (N,), the requested classes, or None.
    """

    scores: dict[str, Any]
    estimates: Estimates
    confusion: Tensor | None
    nearest: Nearest | None
    labels: Tensor | None


class Scorer:
    """Scores samples with one classifier or several.

    Args:
        feature_spaces: The first gives `fd_ratio`, the confusion matrix and the names without a
            number.
        real: The data set, for the metrics in pixels and of classes; None leaves these out.
        held_out: Distances of the test images, see `features.held_out_distances`; None leaves
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
        """Score samples (N, C, H, W), nominally in [-1, 1], of the requested classes (N,).

        The scores also hold those of `score`; `per_class_low` and `per_class_high`;
        `class_shares`: of the predicted classes; `pairwise_distance_test`: of the first test
        images; for each classifier `feature_space`, `classifier_sha256` and
        `classifier_test_accuracy`.

        Raises:
            ValueError: Fewer than 10 samples, or samples that are not finite.
        """
        _refuse(samples)
        if len(samples) < FEWEST:
            raise ValueError(
                f"num_samples={len(samples)}: metrics with intervals need at least {FEWEST}, "
                "better 1000"
            )
        seen, labels = quantised(samples), None if labels is None else labels.cpu()
        vectors = [features_of(space.net, seen) for space in self.feature_spaces]
        outcomes = [
            in_features(space, found, labels)
            for space, found in zip(self.feature_spaces, vectors, strict=True)
        ]
        first = outcomes[0]
        scores = _without_intervals(self.feature_spaces[0], vectors[0], first.fd.value)
        estimates: Estimates = {}
        for number, (space, outcome) in enumerate(zip(self.feature_spaces, outcomes, strict=True)):
            scores |= _identity(space, suffix(number))
            estimates |= {name + suffix(number): e for name, e in outcome.estimates.items()}
        if scores["fd_count"] == len(seen):
            estimates["fd_ratio"] = first.fd.over(scores["fd_test"])
        near = None
        if self.real is not None:
            estimates |= in_pixels(seen, labels, self.real)
            test = from_bytes(self.real.test_images[:FIRST_PAIRS]).flatten(1)
            scores["pairwise_distance_test"] = float(torch.pdist(test).mean())
            if self.held_out is not None:
                copies, near = of_copies(seen, labels, self.real, self.held_out)
                estimates |= copies
        scores |= flat_estimates(estimates, self._baseline(labels, len(seen)))
        if first.shares is not None:
            scores["class_shares"] = [round(value, 4) for value in first.shares.tolist()]
        scores |= {} if first.confusion is None else _per_class(first.confusion)
        return Scored(scores, estimates, first.confusion, near, labels)


@torch.no_grad()
def score(space: FeatureSpace, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Compute the few scores that are cheap and have no interval, as during a training.

    The samples are float (N, C, H, W), nominally in [-1, 1].

    Returns:
        Plain data. `num_samples`: N; `agreement`: share of samples whose predicted class is the
        requested one (None without labels); `per_class`: the same by class, None for a class that
        was not requested; `fd`: Fréchet distance to the training images in the classifier's
        features; `fd_test`: of the first `fd_count` test images, whatever their class; `fd_ratio`:
        that of the first `fd_count` samples over it, where `fd_count` is the smaller of N and the
        number of test images; `classifier_test_accuracy`.

    Raises:
        ValueError: Fewer than two samples, or samples that are not finite.
    """
    _refuse(samples)
    vectors = features_of(space.net, quantised(samples))
    fd = frechet(fit_gaussian(vectors), space.reference)
    scores = _without_intervals(space, vectors, fd)
    if labels is not None and space.predicts_classes:
        confusion = confusion_matrix(space.net.head(vectors), labels)
        scores["agreement"] = int(confusion.trace()) / len(labels)
        scores["per_class"] = _per_class(confusion)["per_class"]
    return scores


def compare(one: Scored, two: Scored) -> dict[str, float | None]:
    """Differences of all metrics that two sets of paired samples have, with 95 % intervals.

    The k-th samples of both sets start from one noise, so much of their sampling noise is the same
    and cancels in the difference. Its interval is therefore often much narrower than the two
    intervals suggest, which may overlap although the difference is significant. Means and shares
    are compared by a bootstrap of the paired differences, other statistics by the jackknife on the
    same groups, see `intervals`.

    Returns:
        For each metric X: `X_difference`, that of `one` less that of `two`, and the ends
        `X_difference_low` and `X_difference_high`; None for no value.

    Raises:
        ValueError: The sets differ in number, requested classes or feature spaces.
    """
    counts = one.scores["num_samples"], two.scores["num_samples"]
    if counts[0] != counts[1]:
        raise ValueError(f"num_samples={counts[0]} and {counts[1]}: draw equally many of both")
    classes = [None if s.labels is None else s.labels.tolist() for s in (one, two)]
    if classes[0] != classes[1]:
        raise ValueError("labels of the two sets differ: draw the same classes in the same order")
    for key in one.scores.keys() & two.scores.keys():
        if key.endswith("_sha256") and one.scores[key] != two.scores[key]:
            raise ValueError(f"{key} differs: score both sets with the same classifiers")
    result: dict[str, float | None] = {}
    for name, estimate in one.estimates.items():
        if name in two.estimates:
            difference = estimate.minus(two.estimates[name])
            for end, value in zip(("", "_low", "_high"), difference, strict=True):
                result[f"{name}_difference{end}"] = float(value) if math.isfinite(value) else None
    return result


def flat_estimates(
    estimates: Mapping[str, Estimate], real: Mapping[str, float]
) -> dict[str, float | None]:
    """Plain data of estimates: `X`, `X_low`, `X_high` and `X_real`; None for no value."""
    result: dict[str, float | None] = {}
    for name, estimate in estimates.items():
        values = (*estimate.interval(), real.get(name, math.nan))
        for end, value in zip(("", "_low", "_high", "_real"), values, strict=True):
            result[name + end] = float(value) if math.isfinite(value) else None
    return result


def _refuse(samples: Tensor) -> None:
    if len(samples) < 2:
        raise ValueError(f"num_samples={len(samples)}: a distance needs at least 2, better 1000")
    if not torch.isfinite(samples).all():
        raise ValueError("the samples hold values that are not finite: the model has diverged")


def _without_intervals(space: FeatureSpace, vectors: Tensor, fd: float) -> dict[str, Any]:
    """See `score`; `fd` is the distance of all feature vectors."""
    count = min(len(vectors), len(space.test_features))
    fd_test = frechet(fit_gaussian(space.test_features[:count]), space.reference)
    if count < len(vectors):
        fd_first = frechet(fit_gaussian(vectors[:count]), space.reference)
    else:
        fd_first = fd
    return {
        "num_samples": len(vectors),
        "agreement": None,
        "per_class": None,
        "fd": fd,
        "fd_test": fd_test,
        "fd_count": count,
        "fd_ratio": fd_first / fd_test,
        "classifier_test_accuracy": space.test_accuracy,
    }


def _identity(space: FeatureSpace, end: str) -> dict[str, Any]:
    return {
        f"feature_space{end}": f"FD-{space.name}",
        f"classifier{end}_sha256": space.sha256,
        f"classifier{end}_test_accuracy": space.test_accuracy,
    }


def _per_class(confusion: Tensor) -> dict[str, list[float | None]]:
    """Agreement by class, with intervals."""
    result: dict[str, list[float | None]] = {"": [], "_low": [], "_high": []}
    for right, count in zip(confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True):
        values = share(right, count) if count else (None, None, None)
        for end, value in zip(result, values, strict=True):
            result[end].append(None if value is None else round(value, 4))
    return {f"per_class{end}": values for end, values in result.items()}
