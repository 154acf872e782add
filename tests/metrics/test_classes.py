"""Predicted classes: against the requested ones, and of samples drawn without a class."""

import math

import pytest
import torch

from diffusion_lab.metrics.classes import class_shares, confusion_matrix
from diffusion_lab.metrics.intervals import random_groups


def test_confusion_by_hand():
    scores, labels = torch.eye(3)[torch.tensor([0, 0, 1, 1, 1])], torch.tensor([0, 0, 0, 1, 1])
    confusion = confusion_matrix(scores, labels)
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]


@pytest.mark.parametrize("labels", [[], [0, 1], [0, 3, 1], [0, -1, 1]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match=r"expected|knows the classes"):
        confusion_matrix(torch.zeros(3, 3), torch.tensor(labels, dtype=torch.long))


def test_entropy_and_variation_by_hand():
    predicted = torch.tensor([0] * 30 + [1] * 10)
    found = class_shares(predicted, torch.tensor([50, 50, 100]), random_groups(40))
    assert found.shares.tolist() == [0.75, 0.25, 0]
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert found.entropy.value == pytest.approx(expected)
    assert found.variation.value == pytest.approx(0.5), "half of the samples should be twos"
    assert found.variation.interval().low > 0.3
    even = class_shares(torch.arange(40) % 4, torch.ones(4), random_groups(40))
    assert even.entropy.value == pytest.approx(math.log(4)) and even.variation.value == 0


@pytest.mark.parametrize("counts", [torch.ones(2), torch.zeros(3)])
def test_classes_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="0 to 2"):
        class_shares(torch.tensor([0, 2]), counts, random_groups(2))
