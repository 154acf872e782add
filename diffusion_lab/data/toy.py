"""Toy data sets: points in the plane, made on the spot; no files and no network.

Moons are scikit-learn's; the others are those that papers on flows and diffusion show (FFJORD,
Grathwohl et al. 2018, arXiv 1810.01367, and its code), each with classes where it has parts.
`scale` of each is the root mean square of its coordinates, worked out beside it. A new set writes
`draw` (and its constants) alone.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from diffusion_lab.data.data_module import MemoryDataModule, Splits
from diffusion_lab.errors import DataError
from diffusion_lab.ranges import Count, NonNegative, checked

TRAIN_SEED, TEST_SEED = 1, 2
"""Seeds of the points: constants, so that runs of any seed see the same training and test set."""

LabelledPoints = tuple[NDArray[np.floating], NDArray[np.integer]]
"""Points `(N, 2)` and their labels `(N,)`."""


@checked
@dataclass(kw_only=True, eq=False)
class PointsDataModule(MemoryDataModule):
    """Base of the toy sets: points of about zero mean and unit scale, standardised by constants.

    Batches are `(points, labels)`: float32 `(B, 2)` and int64 `(B,)`. The points are drawn
    independently of each other, and test points independently of those for training.
    `train_size` leaves out the points for validation.
    """

    shape: Sequence[Count] = (2,)
    num_classes: Count | None = None
    train_size: Annotated[int, Ge(2)] = 100_000
    test_size: Annotated[int, Ge(2)] = 100_000
    eval_batch_size: Count = 5000

    original = (2,)
    moments = (0.0, 1.0)
    centre: ClassVar[tuple[float, float]] = (0.0, 0.0)
    """Subtracted from what `draw` returns."""
    scale: ClassVar[float] = 1.0
    """Then divides both coordinates: one number, so that shapes keep their proportions."""

    def _check_shape(self) -> None:
        if self.shape != (2,):
            raise DataError(f"shape={list(self.shape)}: {type(self).__name__} has shape [2]")

    @abstractmethod
    def draw(self, count: int, seed: int) -> LabelledPoints:
        """`count` independent points in the set's own unit, and their labels."""

    def read(self) -> Splits:
        """Draw the training and the test points."""
        train = self._standard(self.train_size + self.validation_size, TRAIN_SEED)
        test = self._standard(self.test_size, TEST_SEED)
        digest = hashlib.sha256(train[0].numpy().tobytes() + test[0].numpy().tobytes()).hexdigest()
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        return Splits(*train, *test, name=name, sha256={name: digest})

    def _standard(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        points, labels = self.draw(count, seed)
        points = (points - np.asarray(self.centre)) / self.scale
        return torch.from_numpy(points).float(), torch.from_numpy(labels).long()


@checked
@dataclass(kw_only=True, eq=False)
class Moons(PointsDataModule):
    """Two interleaving half circles with Gaussian noise (`sklearn.datasets.make_moons`)."""

    noise: NonNegative = 0.05

    class_names = ("upper", "lower")
    # Mean (1/2, 1/4), standard deviations 0.87 and 0.49: their root mean square is 0.71.
    centre, scale = (0.5, 0.25), 0.7
    surplus = 5
    """Points made for each one kept, see `draw`."""

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """A few out of many: `make_moons` spaces its points evenly along the half circles.

        Taken whole, two of its sets would be closer to each other than any two sets of
        independent points can be, and no model could come up to that.
        """
        from sklearn.datasets import make_moons  # its import is needed here alone

        points, labels = make_moons(self.surplus * count, noise=self.noise, random_state=seed)
        return points[:count], labels[:count]


class Circles(PointsDataModule):
    """Two circles about 0 of radius 1 and 1/2, with Gaussian noise of 0.04."""

    class_names = ("outer", "inner")
    noise = 0.04
    # E |x|^2 = (1 + 1/4) / 2 + 2 * 0.04^2, over two coordinates
    scale = math.sqrt(0.3141)

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """Points at an even angle on one circle or the other."""
        rng = np.random.default_rng(seed)
        label = rng.integers(2, size=count)
        circle = _round(np.where(label == 0, 1.0, 0.5), rng.uniform(0, 2 * math.pi, count))
        return circle + self.noise * rng.normal(size=(count, 2)), label


class Spirals(PointsDataModule):
    """Two spiral arms of one and a half turns from 0 to radius 1, opposite each other."""

    class_names = ("first", "second")
    turns, noise = 1.5, 0.02
    # The radius is the square root of an even number: E |x|^2 = 1/2 + 2 * 0.02^2
    scale = math.sqrt(0.2504)

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """Points that lie about evenly along an arm, whose angle is proportional to the radius."""
        rng = np.random.default_rng(seed)
        label = rng.integers(2, size=count)
        radius = np.sqrt(rng.uniform(size=count))
        arm = _round(radius, 2 * math.pi * self.turns * radius + math.pi * label)
        return arm + self.noise * rng.normal(size=(count, 2)), label


class Checkerboard(PointsDataModule):
    """The eight dark squares of a board of 4 x 4; each is a class. Its edges are sharp."""

    class_names = tuple(f"square {k}" for k in range(8))
    # Even on [-2, 2] along each axis: a variance of 4^2 / 12
    scale = math.sqrt(4 / 3)

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """A square and a place in it; rows are filled alternately."""
        rng = np.random.default_rng(seed)
        label = rng.integers(8, size=count)
        row = label // 2
        corner = np.stack([2 * (label % 2) + row % 2, row], axis=1) - 2.0
        return corner + rng.uniform(size=(count, 2)), label


class EightGaussians(PointsDataModule):
    """Eight Gaussians of standard deviation 0.1 on a circle of radius 1, counterclockwise."""

    class_names = (
        "east", "north-east", "north", "north-west", "west", "south-west", "south", "south-east",
    )  # fmt: skip
    spread = 0.1
    # E |x|^2 = 1 + 2 * 0.1^2
    scale = math.sqrt(0.51)

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """A Gaussian, and a point of it."""
        rng = np.random.default_rng(seed)
        label = rng.integers(8, size=count)
        centre = _round(np.ones(count), label * (math.pi / 4))
        return centre + self.spread * rng.normal(size=(count, 2)), label


class Pinwheel(PointsDataModule):
    """Five bent blades (Johnson et al. 2016, arXiv 1603.06277): narrow Gaussians, twisted."""

    class_names = tuple(f"blade {k}" for k in range(5))
    radial, tangential, rate = 0.3, 0.1, 0.25
    # The twist keeps lengths: E |x|^2 = 1 + 0.3^2 + 0.1^2
    scale = math.sqrt(0.55)

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """A point of a Gaussian at (1, 0), turned to its blade and by more the farther out."""
        rng = np.random.default_rng(seed)
        label = rng.integers(5, size=count)
        blade = rng.normal(size=(count, 2)) * [self.radial, self.tangential] + [1.0, 0.0]
        turn = label * (2 * math.pi / 5) + self.rate * np.exp(blade[:, 0])
        angle = np.arctan2(blade[:, 1], blade[:, 0]) + turn
        return _round(np.hypot(blade[:, 0], blade[:, 1]), angle), label


class SwissRoll(PointsDataModule):
    """One spiral, radius and angle from 1.5 pi to 4.5 pi (sklearn's roll, seen along its axis)."""

    class_names = ("roll",)
    noise = 0.5
    # For t even in [1.5 pi, 4.5 pi]: the means of t cos t and t sin t, 2 and 2 / (3 pi), and the
    # root mean square about them, noise included
    centre, scale = (2.0, 2 / (3 * math.pi)), 6.807

    def draw(self, count: int, seed: int) -> LabelledPoints:
        """Points at an even angle, so denser near the middle; all of one class."""
        rng = np.random.default_rng(seed)
        angle = 1.5 * math.pi * (1 + 2 * rng.uniform(size=count))
        roll = _round(angle, angle)
        return roll + self.noise * rng.normal(size=(count, 2)), np.zeros(count, dtype=np.int64)


def _round(radius: NDArray[np.floating], angle: NDArray[np.floating]) -> NDArray[np.floating]:
    """Points `(N, 2)` of polar coordinates."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
