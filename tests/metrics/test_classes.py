"""Classes of samples that no class was asked of."""

import math

import pytest
import torch

from diffusion_lab.metrics.classes import classes
from diffusion_lab.metrics.intervals import deal


def test_entropy_and_variation_by_hand():
    read = torch.tensor([0] * 30 + [1] * 10)
    found = classes(read, torch.tensor([50, 50, 100]), deal(40))
    assert found.shares.tolist() == [0.75, 0.25, 0]
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert found.entropy.value == pytest.approx(expected)
    assert found.variation.value == pytest.approx(0.5), "half of the samples should be twos"
    assert found.variation.interval().low > 0.3
    even = classes(torch.arange(40) % 4, torch.ones(4), deal(40))
    assert even.entropy.value == pytest.approx(math.log(4)) and even.variation.value == 0


@pytest.mark.parametrize("wanted", [torch.ones(2), torch.zeros(3)])
def test_classes_that_do_not_fit_are_refused(wanted):
    with pytest.raises(ValueError, match="0 to 2"):
        classes(torch.tensor([0, 2]), wanted, deal(2))
