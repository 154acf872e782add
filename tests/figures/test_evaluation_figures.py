"""Pictures of scored samples, the front of a table, and what a difference is said to mean."""

import pytest
import torch

from diffusion_lab.figures.evaluation_figures import (
    PAIRS,
    confusion_image,
    density_image,
    nearest_image,
)
from diffusion_lab.figures.grids import to_pixels
from diffusion_lab.figures.pictures import tiles
from diffusion_lab.figures.study_figures import on_front
from diffusion_lab.studies.text_tables import difference_table, markdown


def test_nearest_pairs_come_first_each_above_its_training_image():
    samples = torch.linspace(-1, 1, 30)[:, None, None, None].expand(30, 1, 8, 8)
    distance = torch.arange(30.0).flip(0)
    page = nearest_image(samples, -samples, distance)
    shown = tiles(page, 2 * PAIRS)
    grey = [int(to_pixels(samples[k : k + 1])[0, 0, 0]) for k in range(29, 29 - PAIRS, -1)]
    assert [tile.getpixel((0, 0)) for tile in shown[:PAIRS]] == grey
    below = [tile.getpixel((0, 0)) for tile in shown[PAIRS:]]
    assert all(abs(a + b - 255) <= 1 for a, b in zip(grey, below, strict=True))


def test_a_confusion_matrix_is_darkest_where_most_is_read():
    confusion = torch.diag(torch.tensor([50, 50, 50])) + torch.tensor(
        [[0, 0, 0], [0, 0, 5], [0, 0, 0]]
    )
    picture = confusion_image(confusion, ["0", "1", "2"])
    pixels = torch.tensor(list(picture.convert("L").getdata())).view(picture.height, -1)
    assert picture.mode == "RGB" and (pixels < 60).float().mean() > 0.05
    assert confusion_image(torch.zeros(2, 2, dtype=torch.long), ["cat", "dog"]).width > 0


def test_a_density_shows_what_the_model_misses():
    two = torch.cat([torch.randn(2000, 2) * 0.1 - 1, torch.randn(2000, 2) * 0.1 + 1])
    picture = density_image(two[:2000], two)
    grey = torch.tensor(list(picture.convert("L").getdata())).view(picture.height, -1)
    left, right = grey.chunk(2, dim=1)
    assert picture.width > picture.height and not torch.equal(left, right[:, : left.shape[1]])
    with pytest.raises(ValueError, match="reference"):
        density_image(two, torch.zeros(3, 3))


def test_the_front_is_what_nothing_beats():
    rows = [
        {"row": "a", "network_calls": 10, "fd": 3.0, "agreement": 0.9},
        {"row": "b", "network_calls": 20, "fd": 2.0, "agreement": 0.8},
        {"row": "c", "network_calls": 20, "fd": 4.0, "agreement": 0.99},
        {"row": "d", "network_calls": 40, "fd": 2.0, "agreement": None},
        {"row": "e", "network_calls": 10, "fd": 3.0, "agreement": 0.9},
    ]
    assert on_front(rows, "network_calls", "fd") == [True, True, False, False, True]
    assert on_front(rows, "network_calls", "agreement") == [True, False, True, False, True]


def test_a_table_shows_intervals_and_stars():
    rows = [{"row": "a", "fd": 1.0, "fd_low": 0.5, "fd_high": 1.5, "front": True}, {"row": "b"}]
    table = markdown(rows, ["fd"])
    assert "| a * | 1.000 (0.500 – 1.500) |" in table and "| b   |" in table


def test_a_difference_is_called_one_where_its_interval_leaves_zero_out():
    differences = {
        "fd": {"value": -0.5, "low": -0.7, "high": -0.3},
        "agreement": {"value": -0.01, "low": -0.02, "high": -0.005},
        "recall": {"value": 0.01, "low": -0.02, "high": 0.04},
        "density": {"value": 0.1, "low": 0.05, "high": 0.15},
        "unheard_of": {"value": 1, "low": 1, "high": 1},
    }
    lines = difference_table(differences, "B", "A").splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == [
        "B is better", "A is better", "no difference shown", "B has more",
    ]  # fmt: skip
    assert "-0.500" in lines[0] and "+1.00%" not in lines[1] and "-1.00%" in lines[1]
