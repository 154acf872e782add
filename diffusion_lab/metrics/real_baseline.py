"""What a perfect sampler would get: held-out real images in place of samples, equally many.

A perfect sampler draws fresh images from the distribution of the data, of the classes asked for;
that is what test images are. So every set is cut from the test images with just as many images of
each class as were asked for, and a figure is the mean over such sets. What it cannot know is how
far the test images differ from the training images as such (in MNIST, other people wrote them).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from diffusion_lab.metrics.distances import frechet
from diffusion_lab.metrics.features import FeatureSpace, RealImages
from diffusion_lab.metrics.image_figures import in_features, in_pixels
from diffusion_lab.metrics.matching import matched_sets
from diffusion_lab.metrics.memorisation import NEAR
from diffusion_lab.pixels import from_bytes

BY_DEFINITION = {"nearest_ratio": 1.0, "copied_share": NEAR, "closer_probability": 0.5}
"""What samples get that are to test images as these are to each other."""

FEW = 10
"""Groups of a jackknife whose only use is to remove a bias."""

Figures = dict[str, float]


class RealDataBaseline:
    """The figures of a perfect sampler; each number and mixture of classes is computed once.

    Args:
        feature_spaces: as those of `Scorer`.
        real: the data set, for the figures in pixels; None leaves these out.
    """

    def __init__(self, feature_spaces: Sequence[FeatureSpace], real: RealImages | None) -> None:
        self.feature_spaces, self.real = feature_spaces, real
        self._known: dict[object, Figures] = {}

    def __call__(self, labels: Tensor | None, count: int) -> Figures:
        """Figures by name; only those by definition where the test set is too small for one set.

        Args:
            labels: int64 ``(count,)``, the classes asked for; None for samples without a class.
            count: number of samples.
        """
        key = count if labels is None else tuple(labels.sort().values.tolist())
        if key not in self._known:
            self._known[key] = self._means(labels, count)
        return self._known[key]

    def _means(self, labels: Tensor | None, count: int) -> Figures:
        first = self.feature_spaces[0]
        sets = matched_sets(labels, first.test_labels, count)
        found = [self._of_set(chosen, labels is not None) for chosen in sets]
        means = (
            {name: fmean(figures[name] for figures in found) for name in found[0]} if sets else {}
        )
        if sets:
            means["fd_ratio"] = means["fd"] / frechet(first.test_features[:count], first.reference)
        return means | BY_DEFINITION

    def _of_set(self, chosen: Tensor, with_classes: bool) -> Figures:
        found: Figures = {}
        labels = self.feature_spaces[0].test_labels[chosen] if with_classes else None
        for number, space in enumerate(self.feature_spaces):
            estimates = in_features(space, space.test_features[chosen], labels, FEW).estimates
            found |= {name + end_of(number): one.value for name, one in estimates.items()}
        if self.real is not None:
            images = from_bytes(self.real.test_images[chosen])
            found |= {
                name: one.value for name, one in in_pixels(images, labels, self.real, FEW).items()
            }
        return found


def end_of(number: int) -> str:
    """End of the names of a classifier's figures: nothing for the first, 2 for the second."""
    return "" if number == 0 else str(number + 1)
