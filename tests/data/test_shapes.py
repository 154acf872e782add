"""The further toy sets: standardised, of the shapes and classes that they state."""

import numpy as np
import pytest
import torch

from diffusion_lab.data.toy import (
    Checkerboard,
    Circles,
    EightGaussians,
    Pinwheel,
    Spirals,
    SwissRoll,
)

ALL = [Circles, Spirals, Checkerboard, EightGaussians, Pinwheel, SwissRoll]


@pytest.mark.parametrize("kind", ALL)
def test_points_have_mean_zero_and_unit_scale(kind):
    points = kind(train_size=60_000, test_size=1000, validation_size=1000).splits
    assert points.train.mean(0).abs().max() < 0.02
    assert points.train.square().mean().sqrt() == pytest.approx(1.0, abs=0.01)
    counts = torch.bincount(points.labels, minlength=len(kind.class_names))
    assert len(counts) == len(kind.class_names)
    torch.testing.assert_close(
        counts / len(points.labels),
        torch.full((len(counts),), 1 / len(counts)),
        atol=0.01,
        rtol=0,
    )


@pytest.mark.parametrize("kind", ALL)
def test_points_depend_on_the_seed_of_the_call_alone(kind):
    data = kind()
    one, again, other = data.draw(50, 1), data.draw(50, 1), data.draw(50, 2)
    assert np.array_equal(one[0], again[0]) and np.array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])
    assert not np.array_equal(one[0][:25], one[0][25:])


def test_circles_lie_at_their_radius():
    points, label = Circles().draw(2000, 0)
    radius = np.hypot(*points.T)
    assert np.abs(radius - np.where(label == 0, 1.0, 0.5)).max() < 5 * Circles.noise


def test_spirals_are_two_arms_opposite_each_other():
    points, label = Spirals().draw(4000, 0)
    radius, angle = np.hypot(*points.T), np.arctan2(points[:, 1], points[:, 0])
    arm = 3 * np.pi * radius + np.pi * label
    away = np.angle(np.exp(1j * (angle - arm)))
    far = radius > 0.3  # near the middle the noise turns a point by much
    assert np.abs(away[far]).max() < 1.0 and np.abs(away[far]).mean() < 0.25


def test_the_checkerboard_has_eight_dark_squares():
    points, label = Checkerboard().draw(4000, 0)
    cells = np.floor(points).astype(int)
    assert cells.min() == -2 and cells.max() == 1
    assert (cells.sum(1) % 2 == 0).all()
    assert len({(tuple(c), k) for c, k in zip(cells.tolist(), label, strict=True)}) == 8


def test_gaussians_stand_where_their_names_say():
    points, label = EightGaussians().draw(8000, 0)
    for name, direction in (("east", (1, 0)), ("north", (0, 1)), ("south-west", (-0.71, -0.71))):
        chosen = points[label == EightGaussians.class_names.index(name)]
        assert np.allclose(chosen.mean(0), direction, atol=0.03)
        assert np.allclose(chosen.std(0), EightGaussians.spread, atol=0.02)


def test_blades_are_one_blade_turned():
    points, label = Pinwheel().draw(50_000, 0)
    means = np.stack([points[label == k].mean(0) for k in range(5)])
    turn = 2 * np.pi / 5
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    assert np.allclose(means[1:], means[:-1] @ rotation.T, atol=0.03)


def test_the_roll_widens_with_its_angle():
    data = SwissRoll()
    data.noise = 0.0
    points, label = data.draw(4000, 0)
    radius = np.hypot(*points.T)
    direction = np.stack([np.cos(radius), np.sin(radius)], axis=1)
    assert np.allclose(points, radius[:, None] * direction) and (label == 0).all()
    assert 1.5 * np.pi < radius.min() < 4.8 and 14.0 < radius.max() < 4.5 * np.pi


def test_names_in_records():
    names = {kind(train_size=10, test_size=10, validation_size=10).source["name"] for kind in ALL}
    assert names == {
        "circles", "spirals", "checkerboard", "eight_gaussians", "pinwheel", "swiss_roll",
    }  # fmt: skip


def test_a_wrong_number_of_classes_is_told():
    with pytest.raises(ValueError, match=r"num_classes=2.*Checkerboard has 8 classes"):
        Checkerboard(num_classes=2)
