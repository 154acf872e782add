"""The embedded data set: real handwritten digits that need no network.

Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), the 1,797 images
of 8 x 8 that scikit-learn ships. Enlarged and stretched they look like MNIST: a classifier
trained on MNIST alone reads about 95 % of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lab.data.data_module import ImageDataModule, Splits
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, checked

TEST_PER_CLASS = 30


@checked
@dataclass(kw_only=True, eq=False)
class Digits(ImageDataModule):
    """The embedded digits at 28 x 28: 1,497 for training and validation, 300 for testing."""

    validation_size: Count = 197

    moments = (-0.705, 0.661)

    def load(self) -> Splits:
        """Make the images from scikit-learn's copy."""
        return embedded_digits()


def embedded_digits() -> Splits:
    """All embedded digits, split once and for all into training and test images by class."""
    from sklearn.datasets import load_digits  # its import is needed here alone

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float().div_(16).unsqueeze(1)
    labels = torch.from_numpy(bunch.target).long()
    images = enlarge(small)
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        members = (labels == digit).nonzero().squeeze(1)
        test[members[permutation(len(members), "digits test", digit)[:TEST_PER_CLASS]]] = True
    digest = hashlib.sha256(bunch.data.astype("uint8").tobytes()).hexdigest()
    hashes = {"sklearn.datasets.load_digits": digest}
    return Splits(images[~test], labels[~test], images[test], labels[test], "digits", hashes)


def enlarge(small: Tensor) -> Tensor:
    """Turn 8 x 8 digits into the look of MNIST: a bold, sharp 20 x 20 glyph on 28 x 28 black.

    Args:
        small: Float `(N, 1, 8, 8)` in [0, 1].

    Returns:
        uint8 `(N, 1, 28, 28)`.
    """
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    # The stretch makes the soft edges of the enlargement as steep as a pen stroke's.
    stretched = ((large - 0.35) / 0.4).clamp(0, 1)
    return F.pad(stretched.mul(255).round().to(torch.uint8), (4, 4, 4, 4))
