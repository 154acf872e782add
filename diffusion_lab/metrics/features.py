"""The feature space: a classifier of the data set at hand, trained once and cached on disk.

The cache holds the classifier's weights, its accuracy on the test images, and the features of the
real images that samples are compared with (see `cache`).

A metric is only as good as the network behind it, so there are two classifiers that differ in the
seed of weights, order and augmentation alone: conclusions that both support do not depend on one
network. Their feature spaces are called CNN and CNN2, and a Fréchet distance in them FD-CNN and
FD-CNN2: never "FID", which is a distance in Inception's features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.cache import cached, digest_of, lookup
from diffusion_lab.metrics.distances import (
    Gaussian,
    KernelReference,
    cubic,
    fit_gaussian,
    kernel_reference,
)
from diffusion_lab.metrics.memorisation import nearest_training_images
from diffusion_lab.metrics.small_classifier import (
    Classifier,
    Recipe,
    accuracy,
    rotated,
    rotations,
)
from diffusion_lab.metrics.small_classifier import train_classifier as train
from diffusion_lab.pixels import from_bytes, to_pixel_values
from diffusion_lab.random import permutation

CACHE_VERSION = 1
"""Part of the hash in the names of cached files."""
FIRST, SECOND = "CNN", "CNN2"
"""Names of the two feature spaces."""
SECOND_SEED = 1
REFERENCE_IMAGES = 5000
"""Training images whose features are stored one by one, for kernel distance and neighbours."""

OnStep = Callable[[int, int, float], None]
"""Called with (step, steps, loss)."""


class RealImages(NamedTuple):
    """The real images of a feature space: uint8 (N, C, H, W) and int64 (N,).

    With fewer than two classes, the feature space is that of rotation prediction.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


class FeatureSpace(NamedTuple):
    """What samples are measured with.

    Attributes:
        net: The classifier, in evaluation mode, on the CPU.
        reference: Features of the training images, as a Gaussian.
        kernel_reference: Features of up to `REFERENCE_IMAGES` training images, in a fixed random
            order.
        test_features: Features of the test images (M, D), in their order.
        test_labels: Their classes (M,).
        test_accuracy: Share of the test images whose class (or rotation) `net` predicts, 0 to 1.
        train_classes: Number of training images of each class (K,).
        name: `FIRST` or `SECOND`.
        sha256: Of the classifier's weights.
        path: The classifier's file in the cache; None where no folder could be written.
    """

    net: Classifier
    reference: Gaussian
    kernel_reference: KernelReference
    test_features: Tensor
    test_labels: Tensor
    test_accuracy: float
    train_classes: Tensor
    name: str
    sha256: str
    path: Path | None

    @property
    def predicts_classes(self) -> bool:
        """Whether `net` predicts classes; else it predicts rotations."""
        return len(self.train_classes) > 1


def recipe_for(num_images: int) -> Recipe:
    """About eight passes over the images, but neither very few nor very many steps."""
    recipe = Recipe()
    return replace(recipe, steps=max(400, min(2400, 8 * num_images // recipe.batch_size)))


def recipe_suited_to(recipe: Recipe, real: RealImages) -> Recipe:
    """Adapt a recipe to the images: colour photographs are no digits on black."""
    if real.images.shape[1] == 3:
        recipe = replace(recipe, natural=True, max_angle=0.0)
    return replace(recipe, predict_rotation=real.num_classes < 2)


def feature_space(
    real: RealImages,
    folders: Sequence[Path],
    recipe: Recipe | None = None,
    progress: OnStep | None = None,
    name: str = FIRST,
) -> FeatureSpace:
    """The feature space of a data set, read from the cache or computed and cached.

    Args:
        real: Training and test images.
        folders: Of the cache, the preferred one first.
        recipe: How the classifier is trained; by default chosen by the number of images, with
            another seed for the second feature space.
        progress: Called after each training step.
        name: Of the feature space.
    """
    if recipe is None:
        recipe = recipe_for(len(real.images))
        recipe = replace(recipe, seed=SECOND_SEED) if name == SECOND else recipe
    recipe = recipe_suited_to(recipe, real)

    def compute() -> dict[str, Any]:
        rotation = recipe.predict_rotation
        outputs = rotations(real.images) if rotation else real.num_classes
        net = train(real.images, real.labels, outputs, recipe, progress)
        gaussian = fit_gaussian(features_of(net, real.images))
        test = rotated(real.test_images) if rotation else (real.test_images, real.test_labels)
        return {
            "recipe": recipe.as_dict(),
            "weights": net.state_dict(),
            "mean": torch.from_numpy(gaussian.mean),
            "covariance": torch.from_numpy(gaussian.covariance),
            "test_features": features_of(net, real.test_images),
            "test_accuracy": accuracy(net, *test),
        }

    stored, path = cached(_file_of(real, recipe), folders, compute)
    net = _network(stored, real)
    sha256 = digest_of(list(stored["weights"]), list(stored["weights"].values()))
    return FeatureSpace(
        net=net,
        reference=Gaussian(stored["mean"].numpy(), stored["covariance"].numpy()),
        kernel_reference=_kernel_reference(net, sha256, real, folders),
        test_features=stored["test_features"],
        test_labels=real.test_labels,
        test_accuracy=stored["test_accuracy"],
        train_classes=torch.bincount(real.labels, minlength=max(1, real.num_classes)),
        name=name,
        sha256=sha256,
        path=path,
    )


def cached_classifier(real: RealImages, folders: Sequence[Path]) -> Classifier | None:
    """The classifier of `feature_space(real, folders)` if it is in the cache; None if not.

    None as well where the images have no classes to predict.
    """
    recipe = recipe_suited_to(recipe_for(len(real.images)), real)
    stored, _ = lookup(_file_of(real, recipe), folders)
    return None if stored is None or recipe.predict_rotation else _network(stored, real)


def held_out_distances(
    real: RealImages, folders: Sequence[Path], announce: Callable[[], None] | None = None
) -> Tensor:
    """Distance of each test image to its nearest training image, read from the cache or computed.

    `announce` is called before a computation, which takes half a minute for MNIST.
    """

    def compute() -> dict[str, Any]:
        if announce is not None:
            announce()
        parts = real.test_images.split(2000)
        return {"distance": torch.cat([nearest_training_images(p, real.images)[0] for p in parts])}

    key = digest_of(CACHE_VERSION, [real.images, real.test_images])
    distance: Tensor = cached(f"nearest-{key[:16]}.pt", folders, compute)[0]["distance"]
    return distance


@torch.no_grad()
def features_of(net: Classifier, x: Tensor, batch_size: int = 500) -> Tensor:
    """Features (N, D) of images x (N, C, H, W), uint8 or in [-1, 1], a batch at a time."""
    batches = x.split(batch_size)
    return torch.cat(
        [net.features(from_bytes(b) if b.dtype == torch.uint8 else b) for b in batches]
    )


def quantised(samples: Tensor) -> Tensor:
    """Samples as a picture file would store them: on the CPU, clipped, in 256 grey levels.

    Real images have 256 levels; without this the distances would also measure that samples do not.
    """
    return from_bytes(to_pixel_values(samples.detach().float().cpu()))


def _file_of(real: RealImages, recipe: Recipe) -> str:
    """The file of a classifier: named by all that its weights depend on."""
    key = digest_of(json.dumps([CACHE_VERSION, recipe.as_dict(), real.num_classes]), real[:4])
    return f"classifier-{key[:16]}.pt"


def _network(stored: dict[str, Any], real: RealImages) -> Classifier:
    """A classifier out of the cache, in evaluation mode, on the CPU."""
    with torch.device("meta"):  # no random weights: the caller's random state stays as it was
        net = Classifier(real.images.shape[1], len(stored["weights"]["head.bias"]))
    net.load_state_dict(stored["weights"], assign=True)
    return net.eval().requires_grad_(False)


def _kernel_reference(
    net: Classifier, sha256: str, real: RealImages, folders: Sequence[Path]
) -> KernelReference:
    """Features of some training images, read from the cache or computed and cached."""

    def compute() -> dict[str, Any]:
        chosen = permutation(len(real.images), "reference images")[:REFERENCE_IMAGES]
        reference = kernel_reference(features_of(net, real.images[chosen]))
        return {"features": reference.points.float(), "within": reference.within}

    key = digest_of([CACHE_VERSION, REFERENCE_IMAGES, sha256], [real.images])
    stored, _ = cached(f"reference-{key[:16]}.pt", folders, compute)
    return KernelReference(stored["features"].double(), cubic, stored["within"])
