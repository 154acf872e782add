"""What moves points in the plane: fields of arrows at several noise levels, and trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image
from torch import Tensor

from diffusion_lab.figures.clouds import (
    DATA,
    INK,
    check_points,
    draw_cloud,
    frame,
    panels,
    rendered,
    window,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SAMPLE = "#d1495b"
"""Colour of where trajectories end."""


class Field(NamedTuple):
    """A vector field at one noise level.

    Attributes:
        title: of its panel.
        cloud: points at that level (M, 2), drawn behind.
        at: feet of the arrows (K, 2), on a square lattice.
        arrows: their vectors (K, 2).
    """

    title: str
    cloud: Tensor
    at: Tensor
    arrows: Tensor


def field_image(fields: Sequence[Field], half: float, meaning: str) -> Image.Image:
    """Draw fields side by side.

    An arrow starts at its foot; its length grows with the square root of its vector's, and the
    longest of a panel is as long as the lattice is wide.

    Args:
        fields: one a panel, at least one.
        half: half the side of the window around 0.
        meaning: what the arrows are, written above.

    Raises:
        ValueError: no fields, or points that are not (N, 2).
    """
    if not fields:
        raise ValueError("fields is empty: give at least one")
    figure, axes = panels(1, len(fields), side=3.1, titles=0.75)
    for panel, field in zip(axes, fields, strict=True):
        check_points("cloud", field.cloud)
        check_points("at", field.at)
        draw_cloud(panel, field.cloud, colour=DATA)
        _draw_arrows(panel, field, pitch=2 * half / len(field.at) ** 0.5)
        panel.set_title(field.title)
        panel.set_xlabel("$x_1$", fontsize=9)
    axes[0].set_ylabel("$x_2$", fontsize=9)
    figure.suptitle(f"{meaning}; lengths: square root of the vectors'", fontsize=10)
    frame(axes, half)
    return rendered(figure)


def _draw_arrows(axes: Axes, field: Field, pitch: float) -> None:
    length = field.arrows.norm(dim=1, keepdim=True)
    longest = length.max().clamp_min(1e-12)
    # v / |v| times sqrt(|v| / longest), without a division by zero where a vector vanishes.
    drawn = field.arrows * pitch / (longest * length.clamp_min(1e-6 * longest)).sqrt()
    axes.quiver(
        *field.at.cpu().T.numpy(),
        *drawn.cpu().T.numpy(),
        color=INK,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
        headwidth=4,
        headlength=4,
        headaxislength=3.5,
    )


def paths_image(paths: Tensor, data: Tensor) -> Image.Image:
    """Draw trajectories from noise (hollow) to samples (filled) over the data.

    Args:
        paths: (S, N, 2): N points at S moments, from noise to sample.
        data: (M, 2) real points, drawn in grey.

    Raises:
        ValueError: fewer than two moments, or points that are not (N, 2).
    """
    if paths.ndim != 3 or len(paths) < 2:
        raise ValueError(f"paths={tuple(paths.shape)}: give (S, N, 2) with S >= 2 moments")
    check_points("paths", paths[0])
    check_points("data", data)
    figure, (panel,) = panels(1, 1, side=5.0)
    draw_cloud(panel, data, colour=DATA)
    moves = paths.detach().float().cpu()
    count = moves.shape[1]
    # A few ways cross so often that each needs a colour of its own to be followed.
    colours = [f"C{k}" for k in range(count)] if count <= 10 else [INK] * count
    ends = colours if count <= 10 else [SAMPLE] * count
    for k, colour in enumerate(colours):
        panel.plot(*moves[:, k].T.numpy(), color=colour, linewidth=0.7, alpha=0.6)
    panel.scatter(*moves[0].T.numpy(), s=18, facecolors="white", edgecolors=colours,
                  linewidths=1, zorder=3)  # fmt: skip
    panel.scatter(*moves[-1].T.numpy(), s=22, c=ends, edgecolors="white", linewidths=0.5,
                  zorder=4)  # fmt: skip
    panel.set_title(f"{count} trajectories of {len(moves) - 1} steps, noise (hollow) to samples")
    panel.set_xlabel("$x_1$", fontsize=9)
    panel.set_ylabel("$x_2$", fontsize=9)
    frame([panel], window([moves.flatten(0, 1), data]))
    return rendered(figure)
