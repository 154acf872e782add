"""The feature space: a classifier of the data set at hand, trained once and kept on disk.

What is kept: the classifier's weights, its accuracy on the test images, and the features of the
real images that samples are compared with (see `keeping` for how).

A figure is only as good as the network behind it, so there are two, alike but for the seed of
weights, order and augmentation: what both say does not hang on one network's taste. Their feature
spaces are called ``CNN`` and ``CNN2``, and a Fréchet distance in them FD-CNN and FD-CNN2: never
"FID", which is a distance in Inception's features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.distances import Gaussian, fit_gaussian
from diffusion_lab.metrics.keeping import digest_of, found, kept
from diffusion_lab.metrics.kernels import Reference, cubic, reference_of
from diffusion_lab.metrics.memorisation import nearest_training_images
from diffusion_lab.metrics.small_classifier import Classifier, Recipe, accuracy, turned, turns
from diffusion_lab.metrics.small_classifier import train_classifier as train
from diffusion_lab.pixels import from_bytes, to_grey
from diffusion_lab.random import permutation

FORMAT = 1
FIRST, SECOND = "CNN", "CNN2"
"""Names of the two feature spaces."""
SECOND_SEED = 1
"""What makes the second classifier another one."""
REFERENCE = 5000
"""Training images whose features are kept one by one, for kernel distance and neighbours."""

OnStep = Callable[[int, int, float], None]


class RealImages(NamedTuple):
    """The real images that a feature space is made of: uint8 ``(N, C, H, W)`` and int64 ``(N,)``.

    With fewer than two classes, the feature space tells quarter turns apart.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


class FeatureSpace(NamedTuple):
    """What samples are measured with.

    Attributes:
        net: the classifier, in evaluation mode, on the CPU.
        reference: features of the training images, as a Gaussian.
        kernel_reference: features of up to `REFERENCE` training images, in a fixed random order.
        test_features: features of the test images ``(M, D)``, in their order.
        test_labels: their classes ``(M,)``.
        test_accuracy: share of the test images (or of their turns) that `net` reads right, 0 to 1.
        train_classes: number of training images of each class ``(K,)``.
        name: of the feature space, `FIRST` or `SECOND`.
        sha256: of the classifier's weights.
        path: the file the classifier is kept in; None where no folder could be written.
    """

    net: Classifier
    reference: Gaussian
    kernel_reference: Reference
    test_features: Tensor
    test_labels: Tensor
    test_accuracy: float
    train_classes: Tensor
    name: str
    sha256: str
    path: Path | None

    @property
    def reads_classes(self) -> bool:
        """Whether `net` tells classes; else it tells quarter turns."""
        return len(self.train_classes) > 1


def recipe_for(num_images: int) -> Recipe:
    """About eight passes over the images, but neither very few nor very many steps."""
    recipe = Recipe()
    return replace(recipe, steps=max(400, min(2400, 8 * num_images // recipe.batch_size)))


def second_recipe_for(num_images: int) -> Recipe:
    """The recipe of the second classifier: that of the first, with another seed."""
    return replace(recipe_for(num_images), seed=SECOND_SEED)


def recipe_suited_to(recipe: Recipe, real: RealImages) -> Recipe:
    """A recipe as these images need it: colour photographs are no digits on black."""
    if real.images.shape[1] == 3:
        recipe = replace(recipe, natural=True, max_angle=0.0)
    return replace(recipe, turned=real.num_classes < 2)


def feature_space(
    real: RealImages,
    folders: Sequence[Path],
    recipe: Recipe | None = None,
    progress: OnStep | None = None,
    name: str = FIRST,
) -> FeatureSpace:
    """The feature space of a data set: read from the first folder that has it, else made and kept.

    Args:
        real: training and test images.
        folders: where it may be kept, the preferred one first.
        recipe: how the classifier is trained; by default chosen by the number of images.
        progress: called with ``(step, steps, loss)`` while training.
        name: of its feature space.
    """
    recipe = recipe_suited_to(recipe or recipe_for(len(real.images)), real)

    def made() -> dict[str, Any]:
        outputs = turns(real.images) if recipe.turned else real.num_classes
        net = train(real.images, real.labels, outputs, recipe, progress)
        gaussian = fit_gaussian(features(net, real.images))
        test = turned(real.test_images) if recipe.turned else (real.test_images, real.test_labels)
        return {
            "recipe": recipe.as_dict(),
            "weights": net.state_dict(),
            "mean": torch.from_numpy(gaussian.mean),
            "covariance": torch.from_numpy(gaussian.covariance),
            "test_features": features(net, real.test_images),
            "test_accuracy": accuracy(net, *test),
        }

    stored, path = kept(_file_of(real, recipe), folders, made)
    return _unpack(stored, real, folders, name, path)


def kept_classifier(real: RealImages, folders: Sequence[Path]) -> Classifier | None:
    """The classifier of `feature_space(real, folders)` if it is kept already; None if not.

    None as well where the images have no classes, so that there is nothing it could tell.
    """
    recipe = recipe_suited_to(recipe_for(len(real.images)), real)
    stored, _ = found(_file_of(real, recipe), folders)
    return None if stored is None or recipe.turned else _network(stored, real)


def _file_of(real: RealImages, recipe: Recipe) -> str:
    """The file in which a classifier is kept: named by all that its weights depend on."""
    key = digest_of(json.dumps([FORMAT, recipe.as_dict(), real.num_classes]), real[:4])
    return f"classifier-{key[:16]}.pt"


def held_out_distances(
    real: RealImages, folders: Sequence[Path], starting: Callable[[], None] | None = None
) -> Tensor:
    """Distance of each test image to its nearest training image: read, else computed and kept.

    Args:
        real: training and test images.
        folders: where it may be kept, the preferred one first.
        starting: called before a computation, which takes half a minute for MNIST.

    Returns:
        float64 ``(M,)``, as `memorisation.nearest` gives it.
    """

    def made() -> dict[str, Any]:
        if starting is not None:
            starting()
        parts = [
            nearest_training_images(part, real.images).distance
            for part in real.test_images.split(2000)
        ]
        return {"distance": torch.cat(parts)}

    key = digest_of(FORMAT, [real.images, real.test_images])
    distance: Tensor = kept(f"nearest-{key[:16]}.pt", folders, made)[0]["distance"]
    return distance


@torch.no_grad()
def features(net: Classifier, x: Tensor, batch_size: int = 500) -> Tensor:
    """Features ``(N, D)`` of images ``x (N, C, H, W)``, uint8 or in [-1, 1], a batch at a time."""
    batches = x.split(batch_size)
    return torch.cat(
        [net.features(from_bytes(b) if b.dtype == torch.uint8 else b) for b in batches]
    )


def as_seen(samples: Tensor) -> Tensor:
    """Samples as a picture file would hold them: on the CPU, clipped, in 256 steps of grey.

    Real images have 256 levels; without this the distance would also measure that samples do not.

    Args:
        samples: float ``(N, C, H, W)``, nominally in [-1, 1].
    """
    return from_bytes(to_grey(samples.detach().float().cpu()))


def _network(stored: dict[str, Any], real: RealImages) -> Classifier:
    """A classifier as it was kept, in evaluation mode, on the CPU."""
    with torch.device("meta"):  # no random weights: the caller's random state stays as it was
        net = Classifier(real.images.shape[1], len(stored["weights"]["head.bias"]))
    net.load_state_dict(stored["weights"], assign=True)
    return net.eval().requires_grad_(False)


def _unpack(
    stored: dict[str, Any],
    real: RealImages,
    folders: Sequence[Path],
    name: str,
    path: Path | None,
) -> FeatureSpace:
    net = _network(stored, real)
    sha256 = digest_of(list(stored["weights"]), list(stored["weights"].values()))

    def made() -> dict[str, Any]:
        chosen = permutation(len(real.images), "reference images")[:REFERENCE]
        reference = reference_of(features(net, real.images[chosen]))
        return {"features": reference.points.float(), "within": reference.within}

    key = digest_of([FORMAT, REFERENCE, sha256], [real.images])
    reference, _ = kept(f"reference-{key[:16]}.pt", folders, made)
    return FeatureSpace(
        net=net,
        reference=Gaussian(stored["mean"].numpy(), stored["covariance"].numpy()),
        kernel_reference=Reference(reference["features"].double(), cubic, reference["within"]),
        test_features=stored["test_features"],
        test_labels=real.test_labels,
        test_accuracy=stored["test_accuracy"],
        train_classes=torch.bincount(real.labels, minlength=max(1, real.num_classes)),
        name=name,
        sha256=sha256,
        path=path,
    )
