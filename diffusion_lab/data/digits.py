"""The embedded data set: real handwritten digits that need no network.

Source: UCI "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998), the 1,797 images
of 8 x 8 that scikit-learn ships. Enlarged and stretched they look like MNIST: a classifier
trained on MNIST alone reads about 95 % of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lab.data.image_module import ImageDataModule, Images
from diffusion_lab.data.in_memory import SubsetArguments
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, Positive, Seed, checked

TEST_PER_CLASS = 30


class Digits(ImageDataModule):
    """The embedded digits at 28 x 28: 1,497 for training and validation, 300 for testing.

    The arguments are those of `ImageDataModule`; `validation_size` is by default 197.
    """

    @checked
    def __init__(
        self,
        shape: Sequence[Count] = (1, 28, 28),
        num_classes: Count | None = 10,
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        validation_size: Count = 197,
        seed: Seed = 0,
        mean: float = -0.705,
        std: Positive = 0.661,
        horizontal_flip: bool = False,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            shape,
            num_classes,
            batch_size,
            eval_batch_size,
            validation_size,
            seed,
            mean,
            std,
            horizontal_flip,
            **subset,
        )

    def load(self) -> Images:
        """Make the images from scikit-learn's copy."""
        return embedded_digits()


def embedded_digits() -> Images:
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
    return Images(
        images=images[~test],
        labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        name="digits",
        sha256={"sklearn.datasets.load_digits": digest},
    )


def enlarge(small: Tensor) -> Tensor:
    """Turn 8 x 8 digits into the look of MNIST: a bold, sharp 20 x 20 glyph on 28 x 28 black.

    Args:
        small: float ``(N, 1, 8, 8)`` in [0, 1].

    Returns:
        uint8 ``(N, 1, 28, 28)``.
    """
    large = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False)
    # The stretch makes the soft edges of the enlargement as steep as a pen stroke's.
    stretched = ((large - 0.35) / 0.4).clamp(0, 1)
    return F.pad(stretched.mul(255).round().to(torch.uint8), (4, 4, 4, 4))
