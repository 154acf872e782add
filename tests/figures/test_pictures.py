"""Grids, strips, animations and scatter plots: sizes, values, failures."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from diffusion_lab.figures.grids import (
    BACKGROUND,
    INK,
    class_columns,
    image_grid,
    save_grid,
    to_pixels,
    with_margins,
)
from diffusion_lab.figures.network_diagram import BLOCKS, MIDDLE, Part, Plan, diagram
from diffusion_lab.figures.pictures import save_animation, save_picture, tiles
from diffusion_lab.figures.samples import samples_image, strip_image
from diffusion_lab.figures.scatter import scatter_image
from diffusion_lab.files import write_atomically
from diffusion_lab.spread import spread


def ramp(count: int, channels: int = 1) -> torch.Tensor:
    """Images of one value each, from -1 to 1."""
    values = torch.linspace(-1, 1, count).view(-1, 1, 1, 1)
    return values.expand(count, channels, 4, 6).clone()


def test_pixels_map_the_ends_exactly_and_clip_beyond_them():
    pixels = to_pixels(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).view(5, 1, 1, 1))
    assert pixels.ravel().tolist() == [0, 0, 128, 255, 255]


def test_pixels_that_are_not_finite_turn_red():
    images = ramp(2)
    images[1, 0, 0, 0] = float("nan")
    pixels = to_pixels(images)
    assert pixels.shape == (2, 4, 6, 3)
    assert pixels[1, 0, 0].tolist() == [255, 0, 0]
    assert pixels[1, 0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_grid_places_every_image(channels, mode):
    picture = image_grid(ramp(7, channels), columns=3, scale=2, gap=1)
    assert picture.mode == mode
    assert picture.size == (3 * 13 + 1, 3 * 9 + 1)
    array = np.asarray(picture)
    values = to_pixels(ramp(7, channels))[:, 0, 0]
    for k in range(7):
        row, column = divmod(k, 3)
        tile = array[row * 9 + 1 : row * 9 + 9, column * 13 + 1 : column * 13 + 13]
        assert (tile == values[k]).all()
    assert (array[-4, -4] == BACKGROUND).all()  # the empty places of the last row


def test_grid_with_fewer_images_than_columns_is_one_short_row():
    assert image_grid(ramp(2), columns=10, scale=1, gap=0).size == (12, 4)


def test_captions_add_height_and_ink():
    bare = image_grid(ramp(3), columns=3)
    captioned = image_grid(ramp(3), columns=3, labels=torch.tensor([0, 1, 2]))
    assert captioned.size[0] == bare.size[0]
    assert captioned.size[1] > bare.size[1]
    assert (np.asarray(captioned)[bare.size[1] :] > BACKGROUND).any()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"images": ramp(2)[:0]}, "images"),
        ({"images": ramp(2)[:, :, 0]}, "images"),
        ({"images": torch.zeros(4, 2)}, "scatter_image"),
        ({"images": ramp(2), "columns": 0}, "columns=0"),
        ({"images": ramp(2), "scale": 0}, "scale=0"),
        ({"images": ramp(2), "labels": [1]}, "labels"),
    ],
)
def test_grid_names_what_is_wrong(arguments, named):
    with pytest.raises(ValueError, match=named):
        image_grid(**arguments)


def test_save_grid_writes_what_image_grid_draws(tmp_path):
    path = save_grid(tmp_path / "deep" / "grid.png", ramp(5), columns=5)
    assert (np.asarray(Image.open(path)) == np.asarray(image_grid(ramp(5), columns=5))).all()
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


@pytest.mark.parametrize("labels", [None, range(7)])
def test_tiles_come_back_from_the_file(tmp_path, labels):
    path = save_grid(tmp_path / "grid.png", ramp(7), columns=3, scale=2, labels=labels)
    with Image.open(path) as grid:
        cut = [np.asarray(tile) for tile in tiles(grid, 100)]
    assert [tile.shape for tile in cut] == [(8, 12)] * 7
    assert [int(tile[0, 0]) for tile in cut] == to_pixels(ramp(7))[:, 0, 0].tolist()
    assert len(tiles(image_grid(ramp(7)), 2)) == 2
    plain = save_picture(tmp_path / "plain.png", Image.new("L", (9, 9)))
    for foreign in (Image.open(plain), Image.new("L", (9, 9))):
        with pytest.raises(ValueError, match="does not say where its tiles are"):
            tiles(foreign, 1)


def test_a_picture_of_images_is_a_grid_and_of_points_a_cloud():
    same = np.asarray(image_grid(ramp(5, 3), columns=2, scale=3))
    assert (np.asarray(samples_image(ramp(5, 3), columns=2, scale=3)) == same).all()
    cloud = samples_image(torch.randn(20, 2), columns=4)
    assert cloud.mode == "RGB" and np.asarray(cloud).std() > 1
    assert [tile.size for tile in tiles(cloud, 10)] == [cloud.size]
    for shape in ((3, 3), (2, 2, 4, 4), (4,), (2, 1, 5)):
        with pytest.raises(ValueError, match=r"shape=\(.*can be drawn"):
            samples_image(torch.zeros(shape))


def test_words_stand_on_margins_and_never_touch():
    bare = image_grid(ramp(30), columns=30, scale=2, gap=0)
    centres = [(12 * k + 6, f"step {k}") for k in range(30)]
    worded = with_margins(bare, above=centres, left=[(4, "a row")])
    dx, dy = worded.width - bare.width, worded.height - bare.height
    assert (np.asarray(worded)[dy:, dx:] == np.asarray(bare)).all()
    columns = (np.asarray(worded)[:dy, dx - 20 :] > BACKGROUND).any(axis=0)
    clear = np.convolve(~columns, np.ones(5), "valid") == 5  # gaps between words, not letters
    words = int((np.diff(clear.astype(int)) == -1).sum())
    assert 3 <= words < 30
    assert np.asarray(worded)[dy:, :dx].max() <= INK < np.asarray(worded).max()
    assert with_margins(bare).size[1] == bare.size[1]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "file", b"old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_spread_keeps_both_ends():
    assert spread(20, 5) == [0, 5, 10, 14, 19]
    assert spread(3, 10) == [0, 1, 2]
    assert spread(9, 1) == [8]
    with pytest.raises(ValueError, match="strip=0"):
        spread(5, 0)


def test_a_strip_has_x_t_over_x0_for_each_image_and_says_where_it_is():
    states, estimates = ([torch.full((2, 1, 4, 4), level)] * 3 for level in (-1.0, 1.0))
    picture = np.asarray(strip_image(states, estimates, ["t = 1", "b", "t = 0"], scale=4))
    rows = torch.tensor([-1.0, 1.0, -1.0, 1.0]).repeat_interleave(3).view(12, 1, 1, 1)
    bare = np.asarray(image_grid(rows.expand(12, 1, 4, 4), columns=3, scale=4))
    dy, dx = np.subtract(picture.shape, bare.shape)
    assert dx > 0 and dy > 0 and (picture[dy:, dx:] == bare).all()
    assert picture[:dy, dx:].max() > BACKGROUND and picture[dy:, :dx].max() > BACKGROUND


@pytest.mark.parametrize(
    ("states", "estimates", "titles"),
    [([], [], []), ([ramp(1)], [], ["t"]), ([ramp(1)], [ramp(1)], []), ([ramp(1)[0, 0]], [], [])],
)
def test_a_strip_refuses_nothing_and_unequal_lists(states, estimates, titles):
    with pytest.raises(ValueError, match="moments"):
        strip_image(states, estimates, titles)


@pytest.mark.parametrize("ending", ["gif", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_animation_keeps_frames_and_holds_the_last(tmp_path, ending, channels):
    frames = [ramp(4, channels) * level for level in (0.0, 0.5, 1.0)]
    path = save_animation(
        tmp_path / f"film.{ending}", (image_grid(frame, columns=2, scale=1) for frame in frames)
    )
    with Image.open(path) as film:
        assert film.n_frames == 3
        film.seek(2)
        last = np.asarray(film.convert("RGB"))
    wanted = np.asarray(image_grid(frames[-1], columns=2, scale=1).convert("RGB"))
    assert np.abs(last.astype(int) - wanted).max() <= 1


def test_animation_refuses_other_endings_and_no_frames(tmp_path):
    with pytest.raises(ValueError, match=r"\.gif or \.webp"):
        save_animation(tmp_path / "film.mp4", [image_grid(ramp(1))])
    with pytest.raises(ValueError, match="frames"):
        save_animation(tmp_path / "film.gif", [])


def test_scatter_draws_points_where_they_are():
    points = torch.tensor([[0.5, 0.5], [float("nan"), 0.0]])
    picture = scatter_image(points, labels=[0, 1], reference=torch.zeros(3, 2), limit=1, size=200)
    dark = np.argwhere(np.asarray(picture).min(axis=-1) < 150)
    assert picture.size == (200, 200)
    assert np.abs(dark.mean(axis=0) - [50, 150]).max() < 3
    with pytest.raises(ValueError, match="points"):
        scatter_image(torch.zeros(3, 3))


def test_a_diagram_grows_with_its_parts_and_draws_each_box_in_its_colour():
    parts = [Part(f"part {k}", (8, 4, 4), 10) for k in range(3)]
    column = diagram(Plan("a column", parts))
    u = diagram(Plan("a U", parts, Part("middle", (8, 2, 2), 5, colour=MIDDLE), parts, [(1, 1)]))
    assert u.width > 2 * column.width and u.height > column.height
    for sheet, colour, boxes in ((column, BLOCKS, 3), (u, BLOCKS, 6), (u, MIDDLE, 1)):
        area = (np.asarray(sheet) == ImageColor.getrgb(colour)).all(-1).sum()
        assert round(area / (3.1 * 110 * 0.78 * 110) + 0.2) == boxes
    with pytest.raises(ValueError, match="down is empty"):
        diagram(Plan("nothing", []))


def test_a_column_holds_one_class_where_that_fits():
    numbers = (None, 1, 2, 3, 7, 10, 15, 20, 100)
    assert [class_columns(n) for n in numbers] == [10, 10, 10, 9, 7, 10, 15, 20, 20]
