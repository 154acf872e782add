"""Two moons: what they are, that nothing is shared between the sets, and that runs repeat."""

import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from diffusion_lab.data.data_module import ImageDataModule, MemoryDataModule
from diffusion_lab.data.toy import Moons, PointsDataModule


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
