"""Further toy sets in the plane: circles, spirals, checkerboard, Gaussians, pinwheel, Swiss roll.

Those that papers on flows and diffusion show (FFJORD, Grathwohl et al. 2018, arXiv 1810.01367, and
its code), each with classes where it has parts. `scale` of each is the root mean square of its
coordinates, worked out beside it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from diffusion_lab.data.toy import PointsDataModule

DrawnShapes = tuple[NDArray[np.floating], NDArray[np.integer]]
"""Points ``(N, 2)`` and their labels ``(N,)``."""


class Circles(PointsDataModule):
    """Two circles about 0 of radius 1 and 1/2, with Gaussian noise of 0.04."""

    class_names = ("outer", "inner")
    noise = 0.04
    # E |x|^2 = (1 + 1/4) / 2 + 2 * 0.04^2, over two coordinates
    scale = math.sqrt(0.3141)

    def draw(self, count: int, seed: int) -> DrawnShapes:
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

    def draw(self, count: int, seed: int) -> DrawnShapes:
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

    def draw(self, count: int, seed: int) -> DrawnShapes:
        """A square and a place in it; rows are filled alternately."""
        rng = np.random.default_rng(seed)
        label = rng.integers(8, size=count)
        row = label // 2
        corner = np.stack([2 * (label % 2) + row % 2, row], axis=1) - 2.0
        return corner + rng.uniform(size=(count, 2)), label


class EightGaussians(PointsDataModule):
    """Eight Gaussians of standard deviation 0.1 on a circle of radius 1, counterclockwise."""

    class_names = (
        "east",
        "north-east",
        "north",
        "north-west",
        "west",
        "south-west",
        "south",
        "south-east",
    )
    spread = 0.1
    # E |x|^2 = 1 + 2 * 0.1^2
    scale = math.sqrt(0.51)

    def draw(self, count: int, seed: int) -> DrawnShapes:
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

    def draw(self, count: int, seed: int) -> DrawnShapes:
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

    def draw(self, count: int, seed: int) -> DrawnShapes:
        """Points at an even angle, so denser near the middle; all of one class."""
        rng = np.random.default_rng(seed)
        angle = 1.5 * math.pi * (1 + 2 * rng.uniform(size=count))
        roll = _round(angle, angle)
        return roll + self.noise * rng.normal(size=(count, 2)), np.zeros(count, dtype=np.int64)


def _round(radius: NDArray[np.floating], angle: NDArray[np.floating]) -> NDArray[np.floating]:
    """Points ``(N, 2)`` of polar coordinates."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
