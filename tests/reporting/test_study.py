"""Tables and pictures of a study."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lab.figures.evaluation_figures import image_page, point_page
from diffusion_lab.figures.grids import CAPTION_HEIGHT
from diffusion_lab.figures.study_figures import Bars, Curve, Scatter, known
from diffusion_lab.studies.text_tables import comma_separated, markdown, with_speedup

ROWS = [
    {"row": "DDPM", "network_calls": 300.0, "seconds": 60.0, "fd_ratio": 1.25, "agreement": None},
    {"row": "DDIM, 50", "network_calls": 50.0, "seconds": 10.0, "fd_ratio": float("nan")},
    {"row": "DDIM, 20", "network_calls": 20.0, "seconds": 4.0, "fd_ratio": 2.5, "per_class": [1]},
]
COLUMNS = ["network_calls", "speedup", "agreement", "fd_ratio", "sw_ratio"]


def test_a_table_has_the_columns_that_some_row_has():
    rows = with_speedup(ROWS)
    assert known(rows, COLUMNS) == ["network_calls", "speedup", "fd_ratio"]
    lines = [[cell.strip() for cell in line.strip("|").split("|")]
             for line in markdown(rows, COLUMNS).splitlines()]  # fmt: skip
    assert lines[0] == ["row", "network calls per sample", "times faster", "FD ratio"]
    assert lines[2:] == [
        ["DDPM", "300", "1.0", "1.25"],
        ["DDIM, 50", "50", "6.0", "–"],
        ["DDIM, 20", "20", "15.0", "2.50"],
    ]
    assert len({len(line) for line in markdown(rows, COLUMNS).splitlines()}) == 1


def test_csv_holds_all_numbers_unrounded():
    first, second, _ = csv.DictReader(io.StringIO(comma_separated(ROWS)))
    assert (first["row"], float(first["fd_ratio"])) == ("DDPM", 1.25)
    assert second["row"] == "DDIM, 50" and "per_class" not in first


def test_an_unknown_figure_is_refused():
    for make in (lambda: Bars(["fad"]), lambda: Curve("epoch", ["fd_ratio"])):
        with pytest.raises(ValueError, match="there are agreement, agreement2"):
            make()
    with pytest.raises(ValueError, match="'fad' is unknown"):
        markdown(ROWS, ["fad"])


def picture(figure, rows=ROWS):
    return np.asarray(Image.open(io.BytesIO(figure.png(rows))).convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "figure",
    [Bars(["fd_ratio", "sw_ratio"]), Curve("network_calls", ["fd_ratio"]),
     Scatter("network_calls", ["fd_ratio", "seconds"])],
)  # fmt: skip
def test_a_picture_shows_its_rows(figure):
    pixels = picture(figure)
    assert pixels.shape[1] == 1200
    moved = picture(figure, [*ROWS[:2], {**ROWS[2], "fd_ratio": 2.0}])
    assert np.abs(pixels - moved).sum() > 0 or pixels.shape != moved.shape
    assert picture(figure, [{"row": "nothing"}]).min() == 255, "no value, no panel"


def test_bars_grow_with_the_rows():
    assert picture(Bars(["fd_ratio"]), ROWS * 3).shape[0] > picture(Bars(["fd_ratio"])).shape[0]


def test_a_wide_range_is_drawn_on_a_logarithmic_axis():
    """All three bars have a visible length, though one value is 500 times another."""
    rows = [{"row": str(k), "fd_ratio": v} for k, v in enumerate((1.0, 20.0, 500.0))]
    blue = (np.abs(picture(Bars(["fd_ratio"]), rows) - (33, 102, 172)).sum(-1) < 30).sum(1)
    lengths = sorted({int(n) for n in blue if n > 30})
    assert len(lengths) >= 3 and lengths[0] > 0.05 * lengths[-1]


def test_the_page_of_images_has_a_line_a_row():
    generator = torch.Generator().manual_seed(0)
    blocks = [torch.rand(5, 1, 28, 28, generator=generator) for _ in range(3)]
    page = image_page(["a", "b", "c"], blocks)
    assert page.width == 5 * 58 + 2 and page.height == 3 * (60 + CAPTION_HEIGHT)
    other = image_page(["a", "b", "c"], [blocks[0], blocks[0], blocks[2]])
    changed = np.abs(np.asarray(page).astype(int) - np.asarray(other)).sum(1).nonzero()[0]
    assert changed.min() >= 74 + CAPTION_HEIGHT and changed.max() < 148, "the second line alone"


def test_the_page_of_points_has_a_plot_a_row():
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    page = point_page(["a", "b", "c"], [points] * 3, points)
    assert page.width == 3 * 284 + 4
    assert point_page(["a"] * 5, [points] * 5, points).height > 1.5 * page.height
