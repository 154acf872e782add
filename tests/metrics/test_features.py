"""The feature space: trained once, kept, never used when stale or damaged."""

import pytest
import torch

from diffusion_lab.data.digits import embedded_digits
from diffusion_lab.metrics import features as features_module
from diffusion_lab.metrics.features import (
    FIRST,
    SECOND,
    RealImages,
    feature_space,
    quantised,
    recipe_for,
    recipe_suited_to,
)
from diffusion_lab.metrics.scores import score
from diffusion_lab.metrics.small_classifier import Recipe, accuracy, augment, rotated
from diffusion_lab.pixels import from_bytes

QUICK = Recipe(steps=80, batch_size=32)


@pytest.fixture(scope="module")
def real():
    return RealImages(*embedded_digits()[:4], num_classes=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("feature_space")


@pytest.fixture(scope="module")
def measure(real, folder):
    return feature_space(real, [folder], QUICK)


def test_reads_digits_it_has_not_seen(real, measure):
    assert measure.test_accuracy > 0.9
    assert measure.test_accuracy == accuracy(measure.net, real.test_images, real.test_labels)
    assert measure.test_features.shape == (300, 128)


def no_training(*args):
    raise AssertionError("trained again")


def test_is_trained_once(real, folder, measure, monkeypatch):
    monkeypatch.setattr(features_module, "train", no_training)
    again = feature_space(real, [folder / "elsewhere", folder], QUICK)
    assert again.path == measure.path
    assert torch.equal(again.test_features, measure.test_features)
    with pytest.raises(AssertionError, match="trained again"):
        feature_space(real, [folder], Recipe(steps=61, batch_size=64))
    changed = real.images.clone()
    changed[0, 0, 0, 0] += 1
    with pytest.raises(AssertionError, match="trained again"):
        feature_space(real._replace(images=changed), [folder], QUICK)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"x" + b[1:]])
def test_a_damaged_file_is_not_used(real, folder, measure, monkeypatch, damage):
    monkeypatch.setattr(features_module, "train", no_training)
    content = measure.path.read_bytes()
    measure.path.write_bytes(damage(content))
    try:
        with pytest.raises(AssertionError, match="trained again"):
            feature_space(real, [folder], QUICK)
    finally:
        measure.path.write_bytes(content)


def test_training_is_reproducible_and_leaves_the_callers_randomness(real, tmp_path):
    (tmp_path / "file").write_text("in the way")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = feature_space(real, [tmp_path / "file"], Recipe(steps=2, batch_size=16))
    assert one.path is None, "a folder that cannot be made is no reason to fail"
    assert torch.equal(torch.rand(3), expected)
    two = feature_space(real, [tmp_path / "new"], Recipe(steps=2, batch_size=16))
    assert torch.allclose(one.test_features, two.test_features)
    assert two.path is not None


def test_scores_of_real_and_of_wrong_images(real, measure):
    x, labels = from_bytes(real.test_images), real.test_labels
    own = score(measure, x, labels)
    assert own["agreement"] == pytest.approx(measure.test_accuracy)
    assert own["fd_ratio"] == pytest.approx(1.0) and own["fd"] == pytest.approx(own["fd_test"])
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert score(measure, noise, labels)["fd_ratio"] > 5
    wrong = score(measure, x, (labels + 1) % 10)
    assert wrong["agreement"] < 0.1 and wrong["fd"] == own["fd"]
    assert score(measure, x, None)["agreement"] is None
    sevens = score(measure, x[labels == 7], labels[labels == 7])
    assert sevens["per_class"][:7] == [None] * 7 and sevens["fd_count"] == 30


def test_a_ratio_compares_equal_numbers(measure, real):
    many = torch.cat([from_bytes(real.test_images)] * 2)
    figures = score(measure, many, None)
    assert figures["num_samples"] == 600 and figures["fd_count"] == 300
    assert figures["fd_ratio"] == pytest.approx(1.0)


def test_samples_that_cannot_be_scored_are_refused(measure):
    with pytest.raises(ValueError, match="num_samples=1"):
        score(measure, torch.zeros(1, 1, 28, 28), None)
    with pytest.raises(ValueError, match="not finite"):
        score(measure, torch.full((3, 1, 28, 28), torch.nan), None)


def test_samples_are_seen_in_256_greys():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.allclose(quantised(from_bytes(levels)), from_bytes(levels), atol=1e-6)
    x = quantised(torch.tensor([-3.0, -1.0, 0.003, 1.2]))
    assert x[0] == x[1] == -1 and x[3] == 1


def test_augmentation_keeps_the_background_and_the_ink():
    x = torch.full((64, 1, 28, 28), -1.0)
    x[:, :, 10:18, 10:18] = 1
    generator = torch.Generator().manual_seed(0)
    y = augment(x, Recipe(), generator)
    assert torch.allclose(y[:, :, 0], torch.tensor(-1.0), atol=1e-6)
    assert float((y + 1).sum()) == pytest.approx(float((x + 1).sum()), rel=0.1)
    still = augment(x, Recipe(max_shift=0, max_angle=0, max_scale=0), generator)
    assert torch.allclose(still, x, atol=1e-5)


def test_the_recipe_follows_the_size_of_the_data():
    assert [recipe_for(n).steps for n in (1, 1497, 60_000, 10**6)] == [400, 400, 2400, 2400]


def test_rotations_are_quarter_turns_and_numbered():
    x = torch.zeros(6, 1, 4, 4)
    x[:, :, 0, 0] = 1
    y, which = rotated(x)
    assert which.tolist() == [0, 1, 2, 3, 0, 1] and x[1, 0, 0, 0] == 1
    corners = [(0, 0), (3, 0), (3, 3), (0, 3)]
    for image, turn in zip(y, which.tolist(), strict=True):
        assert image[0][corners[turn]] == 1 and image.sum() == 1
    oblong, half = rotated(x[:, :, :3])
    assert half.tolist() == [0, 1, 0, 1, 0, 1] and oblong[1, 0, 2, 3] == 1


def test_natural_images_are_mirrored_and_have_no_black_border():
    x = torch.linspace(0, 1, 16).expand(400, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    y = augment(x, Recipe(natural=True, max_angle=0), generator)
    assert y.min() >= 0, "what enters is reflection"
    falls = (y[:, 0, 0, 4] > y[:, 0, 0, 11]).float().mean()
    assert 0.4 < falls < 0.6


def test_the_recipe_suits_the_images(real):
    recipe = recipe_for(1497)
    assert recipe_suited_to(recipe, real) == recipe
    assert list(recipe.as_dict()) == [
        "steps", "batch_size", "lr", "seed", "max_shift", "max_angle", "max_scale",
    ], "kept classifiers of digits are found by it"  # fmt: skip
    colour = real._replace(images=real.images.expand(-1, 3, -1, -1), num_classes=0)
    found = recipe_suited_to(recipe, colour)
    assert found.natural and found.predict_rotation and found.max_angle == 0
    assert found.as_dict()["turned"] is True


def test_images_without_classes_have_features_by_their_turns(real, tmp_path):
    bare = real._replace(labels=torch.zeros_like(real.labels), num_classes=0)
    bare = bare._replace(test_labels=torch.zeros_like(real.test_labels))
    space = feature_space(bare, [tmp_path], QUICK)
    assert not space.predicts_classes and space.net.num_classes == 4
    assert space.test_accuracy > 0.5, "a guess is right in 25 % of cases"
    x = from_bytes(real.test_images)
    figures = score(space, x, None)
    assert figures["fd_ratio"] == pytest.approx(1.0) and figures["agreement"] is None
    assert score(space, x.flip(-2), None)["fd"] > 2 * figures["fd"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_mnist_classifier_is_good_enough(tmp_path, name):
    """At least 99.4 % of the MNIST test set; skipped where MNIST is not at hand."""
    import os

    from diffusion_lab.data.mnist import MNIST

    data = MNIST(os.environ.get("DIFFUSION_LAB_DATA", "data"), download=False)
    if data.missing():
        pytest.skip(f"MNIST is not in {data.folder}")
    made = feature_space(RealImages(*data.splits[:4], 10), [tmp_path], name=name)
    assert made.test_accuracy >= 0.994
