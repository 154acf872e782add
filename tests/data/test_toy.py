"""Toy sets: shapes, classes and scale, that their sets share nothing, and that runs repeat."""

import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from diffusion_lab.data.data_module import ImageDataModule, MemoryDataModule
from diffusion_lab.data.toy import (
    Checkerboard,
    Circles,
    EightGaussians,
    Moons,
    Pinwheel,
    PointsDataModule,
    Spirals,
    SwissRoll,
)

SETS = [Circles, Spirals, Checkerboard, EightGaussians, Pinwheel, SwissRoll]


def moons(**changes):
    return Moons(**({"train_size": 2000, "test_size": 1500, "validation_size": 300} | changes))


def test_batches_are_standardised_points_with_labels():
    data = moons(batch_size=64)
    x, label = next(iter(data.train_dataloader()))
    assert x.shape == (64, 2) and x.dtype == torch.float32
    assert label.shape == (64,) and label.dtype == torch.int64 and set(label.tolist()) == {0, 1}
    kept = data.on_after_batch_transfer([x, label], 0)
    assert torch.equal(kept[0], x), "points are not scaled as pixels are"
    assert len(data.train_dataloader()) == 2000 // 64


def test_statistics_are_those_of_the_half_circles():
    points = Moons().splits
    # x is cos or 1 - cos: variance 1/2 within a moon, 1/4 between their means 0 and 1.
    # y is sin or 1/2 - sin: its mean square is 1/2 or 3/4 - 2/pi, its mean 1/4.
    variance = torch.tensor([0.75, (0.5 + 0.75 - 2 / math.pi) / 2 - 0.25**2])
    expected = ((variance + 0.05**2) / 0.49).sqrt()
    for cloud in (points.train, points.test):
        torch.testing.assert_close(cloud.mean(0), torch.zeros(2), atol=0.02, rtol=0)
        torch.testing.assert_close(cloud.std(0), expected, atol=0.01, rtol=0)
    assert points.labels.float().mean() == pytest.approx(0.5, abs=0.01)


def test_points_lie_on_the_circle_of_their_label():
    points = moons(noise=0.0).splits
    raw = points.train * 0.7 + torch.tensor([0.5, 0.25])
    centre = torch.stack([points.labels, points.labels * 0.5], dim=1)
    radius = (raw - centre).norm(dim=1)
    torch.testing.assert_close(radius, torch.ones_like(radius), atol=1e-5, rtol=0)
    upper = raw[:, 1] - centre[:, 1] > 0
    assert ((points.labels == 0) == upper)[(raw[:, 1] - centre[:, 1]).abs() > 1e-5].all()


def test_points_are_drawn_independently_of_each_other():
    # Evenly spaced points, as make_moons gives them, have as many of one moon as of the other in
    # the whole set and a spread of the mean that is far too small; independent ones do not.
    data = moons()
    means = np.array([data.draw(400, seed)[0][:, 0].mean() for seed in range(200)])
    assert means.std() == pytest.approx(math.sqrt(0.7525 / 400), rel=0.25)


def test_training_validation_and_test_points_are_all_different():
    data = moons()
    sets = [
        {tuple(x.tolist()) for batch, _ in loader for x in batch}
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert [len(s) for s in sets] == [len(data.train_dataloader()) * 128, 300, 1500]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert data.source["sizes"] == {"train": 2000, "validation": 300, "test": 1500}


def test_the_seed_orders_the_points_and_does_not_make_them():
    one, two = moons(seed=0), moons(seed=9)
    assert torch.equal(one.splits.train, two.splits.train)
    assert one.source == two.source
    first, second = (next(iter(data.train_dataloader()))[0] for data in (one, two))
    assert not torch.equal(first, second)
    assert torch.equal(moons(train_size=500).splits.test, one.splits.test)
    assert moons(noise=0.1).source["sha256"] != one.source["sha256"]


class Notes(pl.LightningModule):
    """Trains nothing, remembers what it saw, and saves once in mid-epoch."""

    def __init__(self, file=None):
        super().__init__()
        self.weight, self.seen, self.file = torch.nn.Parameter(torch.zeros(())), [], file

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].clone())
        return self.weight * 0.0

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.file and self.global_step == 4:
            self.trainer.save_checkpoint(self.file)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(notes, resume=None):
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=11, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    only = True if resume else None
    trainer.fit(notes, datamodule=moons(batch_size=300), ckpt_path=resume, weights_only=only)
    return notes.seen


def test_a_resumed_run_sees_the_batches_it_would_have_seen(tmp_path):
    """6 batches an epoch."""
    whole = fit(Notes(tmp_path / "four.ckpt"))
    rest = fit(Notes(), tmp_path / "four.ckpt")
    assert len(whole) == 11 and len(rest) == 7
    assert all(torch.equal(a, b) for a, b in zip(whole[4:], rest, strict=True))


class Line(PointsDataModule):
    """What a new toy set writes."""

    class_names = ("one",)
    centre, scale = (2.0, 0.0), 2.0

    def draw(self, count, seed):
        x = np.random.default_rng(seed).uniform(0, 4, count)
        return np.stack([x, np.zeros(count)], 1), np.zeros(count, dtype=int)


def test_a_new_toy_set_writes_its_generator_alone():
    data = Line(train_size=100, test_size=50, validation_size=10, batch_size=20)
    points = data.splits
    assert points.train.shape == (110, 2) and points.test.shape == (50, 2)
    assert points.train.abs().max() <= 1 and points.train[:, 0].std() > 0.4
    assert data.source["name"] == "line"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"shape": [3]}, r"shape=\[3\]"),
        ({"num_classes": 10}, "num_classes=10.*2 classes"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"train_size": 0}, "train_size=0"),
        ({"test_size": 1}, "test_size=1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"validation_size": 0}, "validation_size=0"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        moons(**changes)


def test_points_and_images_share_one_base():
    assert issubclass(PointsDataModule, MemoryDataModule)
    assert issubclass(ImageDataModule, MemoryDataModule)


@pytest.mark.parametrize("kind", SETS)
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


@pytest.mark.parametrize("kind", SETS)
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
    names = {kind(train_size=10, test_size=10, validation_size=10).source["name"] for kind in SETS}
    assert names == {
        "circles", "spirals", "checkerboard", "eight_gaussians", "pinwheel", "swiss_roll",
    }  # fmt: skip


def test_a_wrong_number_of_classes_is_told():
    with pytest.raises(ValueError, match=r"num_classes=2.*Checkerboard has 8 classes"):
        Checkerboard(num_classes=2)
