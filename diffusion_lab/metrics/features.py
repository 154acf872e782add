"""The yardstick: a classifier of the data set at hand, trained once and kept on disk.

What is kept: the classifier's weights, its accuracy on the test images, and the features of the
real images that samples are compared with. The file's name holds a hash of all that went in
(images, labels, recipe), the file itself a hash of its content, so a stale or damaged one is
never used: it is made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.data.files import write_atomically
from diffusion_lab.metrics.classifier import Classifier, Recipe, accuracy, to_float
from diffusion_lab.metrics.classifier import train_classifier as train
from diffusion_lab.metrics.distances import Gaussian, fit_gaussian

FORMAT = 1
DIGEST = 32  # bytes of SHA-256 behind the content of a file

Progress = Callable[[int, int, float], None]


class RealImages(NamedTuple):
    """The real images that a yardstick is made of: uint8 ``(N, C, H, W)`` and int64 ``(N,)``."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int


class Yardstick(NamedTuple):
    """What samples are measured with.

    Attributes:
        net: the classifier, in evaluation mode, on the CPU.
        reference: features of the training images, as a Gaussian.
        test_features: features of the test images ``(M, D)``, in their order.
        test_accuracy: share of the test images that `net` reads right, 0 to 1.
        path: the file it is kept in; None where no folder could be written.
    """

    net: Classifier
    reference: Gaussian
    test_features: Tensor
    test_accuracy: float
    path: Path | None


def recipe_for(num_images: int) -> Recipe:
    """About eight passes over the images, but neither very few nor very many steps."""
    recipe = Recipe()
    return replace(recipe, steps=max(400, min(2400, 8 * num_images // recipe.batch_size)))


def yardstick(
    real: RealImages,
    folders: Sequence[Path],
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Yardstick:
    """The yardstick of a data set: read from the first folder that has it, else made and kept.

    Args:
        real: training and test images.
        folders: where it may be kept, the preferred one first.
        recipe: how the classifier is trained; by default chosen by the number of images.
        progress: called with ``(step, steps, loss)`` while training.
    """
    recipe = recipe or recipe_for(len(real.images))
    name = f"classifier-{_key(real, recipe)[:16]}.pt"
    for folder in folders:
        stored = _read(folder / name)
        if stored is not None:
            return _unpack(stored, real, folder / name)
    net = train(real.images, real.labels, real.num_classes, recipe, progress)
    reference = fit_gaussian(features(net, to_float(real.images)))
    stored = {
        "recipe": recipe.as_dict(),
        "weights": net.state_dict(),
        "mean": torch.from_numpy(reference.mean),
        "covariance": torch.from_numpy(reference.covariance),
        "test_features": features(net, to_float(real.test_images)),
        "test_accuracy": accuracy(net, real.test_images, real.test_labels),
    }
    return _unpack(stored, real, _write(stored, [folder / name for folder in folders]))


@torch.no_grad()
def features(net: Classifier, x: Tensor, batch_size: int = 500) -> Tensor:
    """Features ``(N, D)`` of images ``x (N, C, H, W)`` in [-1, 1], a batch at a time."""
    return torch.cat([net.features(batch) for batch in x.split(batch_size)])


def as_seen(samples: Tensor) -> Tensor:
    """Samples as a picture file would hold them: on the CPU, clipped, in 256 steps of grey.

    Real images have 256 levels; without this the distance would also measure that samples do not.

    Args:
        samples: float ``(N, C, H, W)``, nominally in [-1, 1].
    """
    grey = samples.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round()
    return grey.mul(2 / 255).sub(1)


def _key(real: RealImages, recipe: Recipe) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, recipe.as_dict(), real.num_classes]).encode())
    for tensor in real[:4]:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _unpack(stored: dict[str, Any], real: RealImages, path: Path | None) -> Yardstick:
    with torch.device("meta"):  # no random weights: the caller's random state stays as it was
        net = Classifier(real.images.shape[1], real.num_classes)
    net.load_state_dict(stored["weights"], assign=True)
    return Yardstick(
        net=net.eval().requires_grad_(False),
        reference=Gaussian(stored["mean"].numpy(), stored["covariance"].numpy()),
        test_features=stored["test_features"],
        test_accuracy=stored["test_accuracy"],
        path=path,
    )


def _read(path: Path) -> dict[str, Any] | None:
    """What `_write` wrote, or None where there is nothing, or nothing sound."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    payload, digest = content[:-DIGEST], content[-DIGEST:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    stored: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
    return stored


def _write(stored: dict[str, Any], paths: Sequence[Path]) -> Path | None:
    """Write to the first place that can be written; readers never see half a file."""
    buffer = io.BytesIO()
    torch.save(stored, buffer)
    payload = buffer.getvalue()
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, payload + hashlib.sha256(payload).digest())
        except OSError:
            continue
        return path
    return None
