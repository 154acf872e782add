"""The real-data baseline: the metrics of held-out real images in place of samples, equally many.

A perfect model draws fresh images from the distribution of the data, of the requested classes;
that is what test images are. So the test images are split into sets with as many images of each
class as were requested, since classes differ in how hard they are and how much they vary, and the
baseline of a metric is its mean over these sets. It does not include how far the test images as
such differ from the training images (in MNIST, other people wrote them).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from diffusion_lab.metrics.distances import fit_gaussian, frechet
from diffusion_lab.metrics.features import FeatureSpace, RealImages
from diffusion_lab.metrics.image_estimates import in_features, in_pixels
from diffusion_lab.metrics.memorisation import NEAR
from diffusion_lab.pixels import from_bytes
from diffusion_lab.random import permutation

MATCHED_SETS = 5
"""Largest number of sets of test images."""
BY_DEFINITION = {"nearest_ratio": 1.0, "copied_share": NEAR, "closer_probability": 0.5}
"""Metrics that compare with the test images themselves."""
FEW_GROUPS = 10
"""Groups of a jackknife whose only use is to remove a bias."""


def matched_sets(labels: Tensor | None, test_labels: Tensor, count: int) -> list[Tensor]:
    """Disjoint sets of `count` test images of the requested classes.

    Returns:
        Up to `MATCHED_SETS` index sets (count,), in a fixed random order; none where the test set
        has fewer images (of some class) than one set needs.
    """
    order = permutation(len(test_labels), "matched sets")
    if labels is None:
        return [part for part in order.split(count)[:MATCHED_SETS] if len(part) == count]
    requested = torch.bincount(labels.cpu()).tolist()
    pairs = [(order[test_labels[order] == k], need) for k, need in enumerate(requested) if need]
    possible = min(MATCHED_SETS, *(len(images) // need for images, need in pairs))
    return [
        torch.cat([images[k * need : (k + 1) * need] for images, need in pairs])
        for k in range(possible)
    ]


class RealDataBaseline:
    """The metrics of real images; computed once for each number and mixture of classes.

    Args:
        feature_spaces: As those of `Scorer`.
        real: The data set, for the metrics in pixels; None leaves these out.
    """

    def __init__(self, feature_spaces: Sequence[FeatureSpace], real: RealImages | None) -> None:
        self.feature_spaces, self.real = feature_spaces, real
        self._known: dict[object, dict[str, float]] = {}

    def __call__(self, labels: Tensor | None, count: int) -> dict[str, float]:
        """Means by name; only those by definition where the test set is too small for one set."""
        key = count if labels is None else tuple(labels.sort().values.tolist())
        if key not in self._known:
            self._known[key] = self._means(labels, count)
        return self._known[key]

    def _means(self, labels: Tensor | None, count: int) -> dict[str, float]:
        first = self.feature_spaces[0]
        sets = matched_sets(labels, first.test_labels, count)
        if not sets:
            return BY_DEFINITION
        metrics = [self._of_set(chosen, labels is not None) for chosen in sets]
        means = {name: fmean(one[name] for one in metrics) for name in metrics[0]}
        fd_test = frechet(fit_gaussian(first.test_features[:count]), first.reference)
        return means | {"fd_ratio": means["fd"] / fd_test} | BY_DEFINITION

    def _of_set(self, chosen: Tensor, with_classes: bool) -> dict[str, float]:
        labels = self.feature_spaces[0].test_labels[chosen] if with_classes else None
        values: dict[str, float] = {}
        for number, space in enumerate(self.feature_spaces):
            estimates = in_features(space, space.test_features[chosen], labels, FEW_GROUPS)[0]
            values |= {name + suffix(number): one.value for name, one in estimates.items()}
        if self.real is not None:
            images = from_bytes(self.real.test_images[chosen])
            estimates = in_pixels(images, labels, self.real, FEW_GROUPS)
            values |= {name: one.value for name, one in estimates.items()}
        return values


def suffix(number: int) -> str:
    """Of the names of a feature space's metrics: nothing for the first, 2 for the second."""
    return "" if number == 0 else str(number + 1)
