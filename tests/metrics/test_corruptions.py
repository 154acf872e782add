"""Which figure notices which corruption: the table below is what the test checks.

A sign says which way a figure must go, at every one of three growing strengths; "." where nothing
is promised. The samples begin as held-out digits, without classes asked for.

    figure              noise  blur  dropped  repeated  copied
    fd                    +     +       +        +        .
    fd_unbiased           +     +       +        .        .
    kd                    +     +       +        .        .
    precision             -     .       .        .        .
    density               -     .       .        .        .
    recall                -     .       -        -        .
    coverage              -     .       -        -        .
    vendi                 .     .       -        -        .
    remaining_variance    .     -       .        .        .
    pairwise_distance     .     -       -        .        .
    class_entropy         .     .       -        .        .
    class_variation       .     .       +        .        .
    nearest_ratio         .     .       .        .        -
    copied_share          .     .       .        .        +
    closer_probability    .     .       .        .        +

noise: Gaussian, added to each pixel. blur: mean with neighbouring pixels, again and again. dropped:
classes that are replaced by images of the others. repeated: samples that are others over again.
copied: samples that are training images. (The mean distance of two samples does not notice
repeated ones: the share of pairs that are equal is too small.)
"""

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from diffusion_lab.data.digits import embedded_digits
from diffusion_lab.metrics.features import (
    SECOND,
    RealImages,
    feature_space,
    held_out_distances,
)
from diffusion_lab.metrics.scores import Scorer, compare
from diffusion_lab.metrics.small_classifier import Recipe
from diffusion_lab.pixels import from_bytes

ROWS = [line.split() for line in __doc__.split("copied\n", 1)[1].split("\n\n")[0].splitlines()]
KINDS = ["noise", "blur", "dropped", "repeated", "copied"]


@pytest.fixture(scope="module")
def real():
    return RealImages(*embedded_digits()[:4], num_classes=10)


@pytest.fixture(scope="module")
def scorer(real, tmp_path_factory):
    folder = [tmp_path_factory.mktemp("feature_spaces")]
    one = feature_space(real, folder, Recipe(steps=80, batch_size=32))
    two = feature_space(real, folder, Recipe(steps=80, batch_size=32, seed=1), name=SECOND)
    return Scorer([one, two], real, held_out_distances(real, folder))


def corrupted(real, kind, strength):
    x, labels = from_bytes(real.test_images), real.test_labels
    generator = torch.Generator().manual_seed(1)
    share = torch.arange(len(x)) % 4 < strength  # a quarter, a half, three quarters
    if kind == "noise":
        return x + 0.2 * strength * torch.randn(x.shape, generator=generator)
    if kind == "blur":
        for _ in range(2 * strength):
            x = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), value=-1), 3, stride=1)
        return x
    if kind == "dropped":
        left = (labels >= 3 * strength).nonzero().squeeze(1)
        return x[
            torch.where(
                labels < 3 * strength, left[torch.arange(300) % len(left)], torch.arange(300)
            )
        ]
    if kind == "repeated":
        left = (~share).nonzero().squeeze(1)
        return x[torch.where(share, left[torch.arange(300) % len(left)], torch.arange(300))]
    return torch.where(share.view(-1, 1, 1, 1), from_bytes(real.images[:300]), x)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_notice_what_they_must(real, scorer, kind):
    clean = from_bytes(real.test_images)
    scores = [scorer(clean, None), *(scorer(corrupted(real, kind, s), None) for s in (1, 2, 3))]
    for name, *signs in ROWS:
        sign = signs[KINDS.index(kind)]
        values = [one.scores[name] for one in scores]
        steps = [b - a for a, b in pairwise(values)]
        if sign == "+":
            assert all(step > 0 for step in steps), (name, values)
        if sign == "-":
            assert all(step < 0 for step in steps), (name, values)
        if sign != ".":
            strongest = compare(scores[-1], scores[0])
            ends = strongest[f"{name}_difference_low"], strongest[f"{name}_difference_high"]
            assert (min(ends) > 0) if sign == "+" else (max(ends) < 0), (name, ends)


def test_real_images_lie_within_their_own_intervals(real, scorer):
    """Two halves of the held-out digits: one as samples, against what such sets get on average."""
    chosen = torch.cat([(real.test_labels == k).nonzero().squeeze(1)[:15] for k in range(10)])
    figures = scorer(from_bytes(real.test_images[chosen]), real.test_labels[chosen]).scores
    for name in ("fd", "kd", "recall", "coverage", "fd2", "vendi", "remaining_variance"):
        assert figures[f"{name}_low"] <= figures[f"{name}_real"] <= figures[f"{name}_high"], name
    for name in ("nearest_ratio", "copied_share", "closer_probability"):
        assert figures[f"{name}_low"] <= figures[f"{name}_real"] <= figures[f"{name}_high"], name


def test_a_score_is_plain_and_names_its_networks(real, scorer):
    x, labels = from_bytes(real.test_images), real.test_labels
    scored = scorer(x, labels)
    figures = scored.scores
    assert all(v is None or isinstance(v, int | float | str | list) for v in figures.values())
    assert (figures["feature_space"], figures["feature_space2"]) == ("FD-CNN", "FD-CNN2")
    assert len(figures["classifier_sha256"]) == 64
    assert figures["classifier_sha256"] != figures["classifier2_sha256"]
    assert figures["agreement_low"] < figures["agreement"] <= figures["agreement_high"]
    assert int(scored.confusion.sum()) == 300 and scored.nearest.index.shape == (300,)
    assert len(figures["per_class_low"]) == 10 and "class_entropy" not in figures
    many = scorer(torch.cat([x, x]), torch.cat([labels, labels])).scores
    assert many["fd_real"] is None, "no test images are left for a perfect sampler of 600"
    with pytest.raises(ValueError, match="num_samples=9"):
        scorer(x[:9], labels[:9])


def test_only_pairs_are_compared(real, scorer):
    x, labels = from_bytes(real.test_images), real.test_labels
    one = scorer(x[:100], labels[:100])
    same = compare(one, one)
    assert all(value == 0 for value in same.values() if value is not None)
    for other, named in [
        (scorer(x[:90], labels[:90]), "num_samples=100 and 90"),
        (scorer(x[:100], None), "labels"),
        (Scorer(scorer.feature_spaces[1:])(x[:100], labels[:100]), "classifier_sha256"),
    ]:
        with pytest.raises(ValueError, match=named):
            compare(one, other)
