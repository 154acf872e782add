"""Memorisation: exact distances, ties, copies, weights of classes."""

import numpy as np
import pytest
import torch

from diffusion_lab.metrics import memorisation as module
from diffusion_lab.metrics.intervals import random_groups
from diffusion_lab.metrics.memorisation import memorisation, nearest_training_images, weights_like
from diffusion_lab.metrics.real_baseline import matched_sets
from diffusion_lab.pixels import from_bytes


def pictures(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 28, 28), generator=generator, dtype=torch.uint8)


def even(n):
    return torch.full((n,), 1 / n, dtype=torch.float64)


def test_nearest_is_the_smallest_distance(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 70)
    train, images = pictures(300), pictures(20, 1)
    found = nearest_training_images(images, train)
    expected = torch.cdist(
        from_bytes(images).flatten(1).double(), from_bytes(train).flatten(1).double()
    )
    assert found.distance.tolist() == pytest.approx(expected.min(1).values.tolist(), rel=1e-5)
    assert torch.equal(found.index, expected.argmin(1))
    again = nearest_training_images(from_bytes(images), train)
    assert torch.equal(again.distance, found.distance), "bytes and floats are the same greys"


def test_copies_are_exactly_0_away_and_of_equals_the_first_is_named():
    train = pictures(200)
    train[150] = train[20]
    near_copy = train[30].clone()
    near_copy[0, 5, 5] += 1 if near_copy[0, 5, 5] < 255 else -1
    found = nearest_training_images(torch.stack([train[20], train[199], near_copy]), train)
    assert found.distance[:2].tolist() == [0, 0] and found.index.tolist() == [20, 199, 30]
    assert float(found.distance[2]) == pytest.approx(2 / 255)
    with pytest.raises(ValueError, match="one size"):
        nearest_training_images(train[:2], train[:, :, :14])


def test_the_probability_counts_pairs():
    """By definition: share of pairs where the sample is closer, ties half."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(1, 12, 40) / 2, rng.integers(1, 14, 60) / 2
    found = memorisation(torch.tensor(ours), torch.tensor(theirs), even(60), random_groups(40))
    pairs = ours[:, None] - theirs[None]
    assert found.closer.value == pytest.approx(((pairs < 0) + 0.5 * (pairs == 0)).mean())
    low, high = found.closer.interval()[1:]
    assert low < found.closer.value < high
    assert found.ratio.value == pytest.approx(np.median(ours) / np.sort(theirs)[29])


def test_samples_like_test_images_and_copies():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(3000, generator=generator).exp()
    held = drawn[1000:]
    honest = memorisation(drawn[:1000], held, even(2000), random_groups(1000))
    for one, ideal in ((honest.ratio, 1.0), (honest.closer, 0.5), (honest.near, 0.01)):
        assert one.interval().low <= ideal <= one.interval().high
    some = drawn[:1000].clone()
    some[:100] = 0.0  # one in ten is a copy
    caught = memorisation(some, held, even(2000), random_groups(1000))
    assert caught.near.interval().low > 0.08 and caught.closer.interval().low > 0.5
    with pytest.raises(ValueError, match="copies"):
        memorisation(some, torch.zeros(9), even(9), random_groups(1000))


def test_classes_are_weighted_as_asked_for():
    labels, test_labels = torch.tensor([0, 0, 0, 1] * 5), torch.tensor([0] * 2 + [1] * 8 + [2])
    weights = weights_like(labels, test_labels)
    assert weights.tolist() == pytest.approx([0.375] * 2 + [0.03125] * 8 + [0])
    assert weights_like(None, test_labels).tolist() == pytest.approx([1 / 11] * 11)
    with pytest.raises(ValueError, match=r"\[3\]"):
        weights_like(torch.tensor([0, 3]), test_labels)
    # Samples as their class's test images are: at even odds, though classes differ greatly.
    distance = torch.where(test_labels == 0, 1.0, 50.0)
    found = memorisation(torch.where(labels == 0, 1.0, 50.0), distance, weights, random_groups(20))
    assert found.closer.value == pytest.approx(0.5)


def test_sets_have_the_classes_asked_for():
    labels, test_labels = torch.tensor([0, 1, 1, 3]), torch.arange(4).repeat(9)
    sets = matched_sets(labels, test_labels, 4)
    assert len(sets) == 4 and len(torch.cat(sets).unique()) == 16, "disjoint"
    assert all(test_labels[one].tolist() == [0, 1, 1, 3] for one in sets)
    assert matched_sets(torch.zeros(10, dtype=torch.long), test_labels, 10) == []
    assert matched_sets(torch.tensor([5]), test_labels, 1) == []
    assert [len(one) for one in matched_sets(None, test_labels, 10)] == [10] * 3
