"""Clouds, moments, fields and trajectories: drawn where they are, and never empty."""

import numpy as np
import pytest
import torch

from diffusion_lab.figures.pictures import save_animation
from diffusion_lab.figures.samples import strip_image
from diffusion_lab.figures.scatter import (
    Field,
    beside_image,
    field_image,
    moments_image,
    paths_image,
    scatter_image,
    window,
)


def ring(count=200, radius=1.0):
    angle = torch.linspace(0, 6.28, count)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


def ink(picture):
    """Share of pixels that are not white."""
    return float((np.asarray(picture.convert("L")) < 250).mean())


def coloured(picture):
    """Rows and columns of pixels that are not grey."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    return np.argwhere(pixels.max(-1) - pixels.min(-1) > 60)


def test_points_stand_where_they_are_in_a_fixed_window():
    picture = scatter_image(torch.tensor([[0.5, 0.5]]), limit=1, size=200)
    assert np.abs(coloured(picture).mean(0) - [50, 150]).max() < 2
    assert not len(coloured(scatter_image(torch.tensor([[3.0, 3.0]]), limit=1, size=200)))


def test_labels_are_colours_and_what_is_not_finite_is_left_out():
    points = torch.tensor([[-0.5, 0.0], [0.5, 0.0], [float("nan"), 0.0], [0.0, float("inf")]])
    pixels = np.asarray(scatter_image(points, labels=[0, 1, 0, 1], limit=1, size=200)).astype(int)
    left, right = pixels[100, 50], pixels[100, 150]
    assert left.argmax() == 2 and right.argmax() == 0, "tab:blue and tab:orange"
    assert ink(scatter_image(points[2:], limit=1)) == 0


def test_the_window_holds_all_finite_points_of_all_clouds():
    assert window([ring(), ring(radius=3.0)]) == pytest.approx(3.15, rel=1e-3)
    broken = torch.tensor([[float("nan"), 1.0]])
    assert window([broken]) > 0 and window([broken, ring()]) == window([ring()])


def test_data_and_samples_stand_side_by_side():
    picture = beside_image(ring(), ring(radius=2.0))
    assert picture.width > 1.8 * picture.height * 0.9
    assert coloured(picture)[:, 1].min() > picture.width / 2, "samples alone are coloured"
    both = beside_image(ring(), ring(), torch.zeros(200).long(), torch.ones(200).long())
    assert coloured(both)[:, 1].min() < both.width / 2


def test_moments_are_columns_of_state_over_estimate():
    clouds = [ring(radius=r) for r in (3.0, 2.0, 1.0)]
    picture = moments_image(clouds, clouds[::-1], ["t = 1", "0.5", "0"])
    assert picture.width / picture.height == pytest.approx(3 / 2, rel=0.15)
    found = coloured(picture)
    upper = found[found[:, 0] < picture.height / 2]
    first, last = (upper[(upper[:, 1] * 3 // picture.width) == k] for k in (0, 2))
    assert np.ptp(first[:, 0]) > 2 * np.ptp(last[:, 0]), "the state shrinks from left to right"


def test_a_strip_of_points_has_two_rows_in_the_window_of_the_states():
    states = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    strip = strip_image([states] * 2, [states * 0.5, states * 100.0], ["a", "b"])
    down, right = (coloured(strip) * 2 // [strip.height, strip.width]).T
    inside = [int(((down == y) & (right == x)).sum()) for y in (0, 1) for x in (0, 1)]
    assert min(inside[:3]) > 0 and inside[3] == 0


def field(arrows):
    side = torch.linspace(-1, 1, 5)
    at = torch.cartesian_prod(side, side)
    return Field("here", ring(), at, arrows(at))


def test_arrows_follow_the_field_and_vanish_with_it():
    towards, still = field(lambda at: -at), field(torch.zeros_like)
    one = field_image([towards], 1.5, "towards the middle")
    assert len(coloured(one)) > 2 * len(coloured(field_image([still], 1.5, "nothing moves")))
    two = field_image([towards, still], 1.5, "both")
    assert two.width > 1.8 * one.width
    with pytest.raises(ValueError, match="fields is empty"):
        field_image([], 1.0, "none")


@pytest.mark.parametrize("count", [3, 30])
def test_trajectories_join_noise_and_samples(count):
    start, end = torch.full((count, 2), -2.0), torch.full((count, 2), 2.0)
    paths = torch.stack([start, torch.zeros(count, 2), end])
    picture = paths_image(paths, ring())
    found = coloured(picture)
    assert np.ptp(found, axis=0).min() > picture.height / 2, "lines from corner to corner"
    with pytest.raises(ValueError, match="S >= 2"):
        paths_image(paths[:1], ring())


@pytest.mark.parametrize(
    "draw",
    [
        lambda bad: scatter_image(bad),
        lambda bad: beside_image(bad, ring()),
        lambda bad: beside_image(ring(), bad),
        lambda bad: moments_image([bad], [ring()], ["t"]),
        lambda bad: paths_image(bad.expand(2, *bad.shape), ring()),
    ],
)
@pytest.mark.parametrize("bad", [torch.zeros(4, 3), torch.zeros(0, 2), torch.zeros(2)])
def test_other_shapes_are_refused(draw, bad):
    with pytest.raises(ValueError, match=r"\(N, 2\)|\(S, N, 2\)"):
        draw(bad)


def test_clouds_make_a_film(tmp_path):
    from PIL import Image

    pictures = [scatter_image(ring(radius=r), limit=2, size=100) for r in (2.0, 1.5, 1.0)]
    with Image.open(save_animation(tmp_path / "film.webp", iter(pictures))) as film:
        assert film.n_frames == 3 and film.size == (100, 100)
