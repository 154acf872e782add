"""Toy data sets: points in the plane, made on the spot; no files and no network.

A new one writes `draw` (and its constants) alone.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Unpack

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.data.in_memory import Held, MemoryDataModule, SubsetArguments
from diffusion_lab.errors import DataError
from diffusion_lab.ranges import Count, NonNegative, Positive, Seed, checked

TRAIN_SEED, TEST_SEED = 1, 2
"""Seeds of the points: constants, so that runs of any seed see the same training and test set."""


class PointsDataModule(MemoryDataModule):
    """Base of the toy sets: points of about zero mean and unit scale, standardised by constants.

    Batches are ``(points, labels)``: float32 ``(B, 2)`` and int64 ``(B,)``. The points are drawn
    independently of each other, and test points independently of those for training.

    Args:
        shape: ``(2,)``.
        num_classes: the number of classes, or null for a model without classes.
        train_size: training points, without those for validation.
        test_size: test points.
        batch_size: points a training step and process.
        eval_batch_size: points a validation or test step and process.
        validation_size: points for validation.
        seed: with the epoch, decides the order of training points; the points do not depend on it.
        mean: mean of the training points' coordinates, standardised.
        std: their standard deviation.
        **subset: `train_images` and `exclude`, see `MemoryDataModule`.

    Raises:
        ArgumentError: a number out of range.
        DataError: a shape or a number of classes that the points do not have.
    """

    original = (2,)
    centre: tuple[float, float] = (0.0, 0.0)
    """Subtracted from what `draw` returns."""
    scale: float = 1.0
    """Then divides both coordinates: one number, so that shapes keep their proportions."""

    @checked
    def __init__(
        self,
        shape: Sequence[Count] = (2,),
        num_classes: Count | None = None,
        train_size: Annotated[int, Ge(2)] = 100_000,
        test_size: Annotated[int, Ge(2)] = 100_000,
        batch_size: Count = 128,
        eval_batch_size: Count = 5000,
        validation_size: Count = 5000,
        seed: Seed = 0,
        mean: float = 0.0,
        std: Positive = 1.0,
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
            **subset,
        )
        if self.shape != (2,):
            raise DataError(f"shape={list(self.shape)}: {type(self).__name__} has shape [2]")
        self.train_size, self.test_size = train_size, test_size

    @abstractmethod
    def draw(self, count: int, seed: int) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        """`count` independent points ``(count, 2)`` in the set's own unit, and their labels."""

    def read(self) -> Held:
        """Draw the training and the test points."""
        train = self._standard(self.train_size + self.validation_size, TRAIN_SEED)
        test = self._standard(self.test_size, TEST_SEED)
        digest = hashlib.sha256(train[0].numpy().tobytes() + test[0].numpy().tobytes()).hexdigest()
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        return Held(*train, *test, name=name, sha256={name: digest})

    def _standard(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        points, labels = self.draw(count, seed)
        points = (points - np.asarray(self.centre)) / self.scale
        return torch.from_numpy(points).float(), torch.from_numpy(labels).long()

    @property
    def points(self) -> Held:
        """The whole data set, float32 points ``(N, 2)``, made when first asked for."""
        return self.held


class Moons(PointsDataModule):
    """Two interleaving half circles with Gaussian noise (`sklearn.datasets.make_moons`).

    The arguments are those of `PointsDataModule`, and

    Args:
        noise: standard deviation of the noise, in the unit of the half circles' radius.
    """

    class_names = ("upper", "lower")
    # Mean (1/2, 1/4), standard deviations 0.87 and 0.49: their root mean square is 0.71.
    centre, scale = (0.5, 0.25), 0.7
    surplus = 5
    """Points made for each one kept, see `draw`."""

    @checked
    def __init__(
        self,
        shape: Sequence[Count] = (2,),
        num_classes: Count | None = None,
        noise: NonNegative = 0.05,
        train_size: Annotated[int, Ge(2)] = 100_000,
        test_size: Annotated[int, Ge(2)] = 100_000,
        batch_size: Count = 128,
        eval_batch_size: Count = 5000,
        validation_size: Count = 5000,
        seed: Seed = 0,
        mean: float = 0.0,
        std: Positive = 1.0,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            shape,
            num_classes,
            train_size,
            test_size,
            batch_size,
            eval_batch_size,
            validation_size,
            seed,
            mean,
            std,
            **subset,
        )
        self.noise = noise

    def draw(self, count: int, seed: int) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
        """A few out of many: `make_moons` spaces its points evenly along the half circles.

        Taken whole, two of its sets would be closer to each other than any two sets of
        independent points can be, and no model could come up to that.
        """
        from sklearn.datasets import make_moons  # its import is needed here alone

        points, labels = make_moons(self.surplus * count, noise=self.noise, random_state=seed)
        return points[:count], labels[:count]
