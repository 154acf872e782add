import pytest
import torch

from diffusion_lab.generate.labels import expand_labels


@pytest.mark.parametrize(
    ("label", "rows"),
    [
        (7, [7, 7, 7]),
        ([3, 8], [3, 8, 3]),
        ("all", [0, 1, 2]),
        ("7", [7, 7, 7]),
        ("3 or 8", [3, 8, 3]),
        ("3 or 8, not 4", [[3, ~4], [8, ~4], [3, ~4]]),
        ("not 4", [[~4]] * 3),
        ("not 4, not 9", [[~4, ~9]] * 3),
        ("1 and 7", [[1, 7]] * 3),
        ("1 and 7 or 3, not 4", [[1, 7, ~4], [3, 10, ~4], [1, 7, ~4]]),
        (torch.tensor([[3, ~4]]), [[3, ~4]] * 3),
        (None, None),
    ],
)
def test_what_may_be_written(label, rows):
    numbers = expand_labels(label, 3, 10)
    assert (numbers if numbers is None else numbers.tolist()) == rows


@pytest.mark.parametrize(
    "label", ["seven", "3 or", "3 or 12", "not 11", "3, 8", "not not 4", "", 10, [], [1.5], "3 4"]
)
def test_what_may_not(label):
    with pytest.raises(ValueError, match="label="):
        expand_labels(label, 3, 10)


def test_a_label_needs_classes():
    with pytest.raises(ValueError, match="without classes"):
        expand_labels(3, 1, None)
    assert expand_labels(None, 1, None) is None
