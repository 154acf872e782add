"""Points in the plane: one cloud, two side by side, moments of sampling, fields, trajectories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from diffusion_lab.figures.pictures import rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
REAL, SAMPLE, PATH_END = "#b4bac4", "#3b6ea8", "#d1495b"
"""Colours of real points, of what a model drew, and of where trajectories end."""

Labels = Sequence[int] | Tensor | None


def scatter_image(
    points: Tensor,
    labels: Labels = None,
    reference: Tensor | None = None,
    limit: float | None = None,
    size: int = 420,
) -> Image.Image:
    """Draw one cloud without axes, coloured by label, as a square RGB picture.

    Args:
        points: (N, 2), N >= 1, any unit; both axes have the same one.
        labels: N class numbers, or None for one colour.
        reference: (M, 2) points drawn in grey behind, such as data; None for none.
        limit: Half the width of the window around 0; None to hold all finite points.
        size: Side of the picture, pixels.
    """
    from matplotlib.figure import Figure

    check_points("points", points)
    figure = Figure(figsize=(size / DPI, size / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    if reference is not None:
        _draw_cloud(axes, reference, colour=REAL)
    _draw_cloud(axes, points, labels)
    half = window([points]) if limit is None else limit
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    return rendered(figure)


def beside_image(
    samples: Tensor, data: Tensor, labels: Labels = None, data_labels: Labels = None
) -> Image.Image:
    """Draw data (M, 2) and samples (N, 2) side by side, in one window, coloured by class."""
    check_points("samples", samples)
    check_points("data", data)
    figure, (left, right) = panels(1, 2)
    _draw_cloud(left, data, data_labels, colour=REAL if data_labels is None else SAMPLE)
    _draw_cloud(right, samples, labels)
    left.set_title(f"data: {len(data):,} points, never trained on")
    right.set_title(f"model: {len(samples):,} samples")
    _frame([left, right], window([data, samples]))
    return rendered(figure)


def moments_image(
    states: Sequence[Tensor],
    estimates: Sequence[Tensor],
    titles: Sequence[str],
    labels: Labels = None,
) -> Image.Image:
    """From noise to data, one column a moment: the state above, the estimate below.

    Args:
        states: The cloud (N, 2) at each moment, in the order of sampling.
        estimates: The estimate x0-hat at the same moments.
        titles: Of the columns.
        labels: Classes of the points, or None for one colour.
    """
    for cloud in (*states, *estimates):
        check_points("points", cloud)
    figure, axes = panels(2, len(states), side=1.8)
    for column, title in enumerate(titles):
        _draw_cloud(axes[column], states[column], labels)
        _draw_cloud(axes[len(states) + column], estimates[column], labels)
        axes[column].set_title(title)
    axes[0].set_ylabel("state $x_t$")
    axes[len(states)].set_ylabel(r"estimate $\hat{x}_0$")
    for part in axes:
        part.set(xticks=(), yticks=())
    # Near pure noise an estimate is the network's error over alpha and may lie anywhere.
    _frame(axes, window(states))
    return rendered(figure)


class Field(NamedTuple):
    """A vector field at one noise level.

    Attributes:
        title: Of its panel.
        cloud: Points at that level (M, 2), drawn behind.
        at: Feet of the arrows (K, 2), on a square lattice.
        arrows: Their vectors (K, 2).
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
        fields: One a panel, at least one.
        half: Half the side of the window around 0.
        meaning: What the arrows are, written above.
    """
    if not fields:
        raise ValueError("fields is empty: give at least one")
    figure, axes = panels(1, len(fields), side=3.1, titles=0.75)
    for panel, field in zip(axes, fields, strict=True):
        check_points("cloud", field.cloud)
        check_points("at", field.at)
        _draw_cloud(panel, field.cloud, colour=REAL)
        _draw_arrows(panel, field, pitch=2 * half / len(field.at) ** 0.5)
        panel.set_title(field.title)
        panel.set_xlabel("$x_1$", fontsize=9)
    axes[0].set_ylabel("$x_2$", fontsize=9)
    figure.suptitle(f"{meaning}; arrow length: square root of vector length", fontsize=10)
    _frame(axes, half)
    return rendered(figure)


def paths_image(paths: Tensor, data: Tensor) -> Image.Image:
    """Draw trajectories from noise (hollow) to samples (filled) over real points.

    Args:
        paths: (S, N, 2): N points at S >= 2 moments, from noise to sample.
        data: (M, 2), drawn in grey.
    """
    if paths.ndim != 3 or len(paths) < 2:
        raise ValueError(f"paths={tuple(paths.shape)}: give (S, N, 2) with S >= 2 moments")
    check_points("paths", paths[0])
    check_points("data", data)
    figure, (panel,) = panels(1, 1, side=5.0)
    _draw_cloud(panel, data, colour=REAL)
    moves = paths.detach().float().cpu()
    count = moves.shape[1]
    # A few ways cross so often that each needs a colour of its own to be followed.
    colours = [f"C{k}" for k in range(count)] if count <= 10 else [SAMPLE] * count
    ends = colours if count <= 10 else [PATH_END] * count
    for k, colour in enumerate(colours):
        panel.plot(*moves[:, k].T.numpy(), color=colour, linewidth=0.7, alpha=0.6)
    panel.scatter(*moves[0].T.numpy(), s=18, facecolors="white", edgecolors=colours,
                  linewidths=1, zorder=3)  # fmt: skip
    panel.scatter(*moves[-1].T.numpy(), s=22, c=ends, edgecolors="white", linewidths=0.5,
                  zorder=4)  # fmt: skip
    panel.set_title(f"{count} trajectories of {len(moves) - 1} steps, noise (hollow) to samples")
    panel.set_xlabel("$x_1$", fontsize=9)
    panel.set_ylabel("$x_2$", fontsize=9)
    _frame([panel], window([moves.flatten(0, 1), data]))
    return rendered(figure)


def check_points(name: str, points: Tensor) -> None:
    """Refuse what cannot be drawn in the plane, naming the argument."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"{name}={tuple(points.shape)}: a scatter plot needs (N, 2) with N >= 1")


def window(clouds: Iterable[Tensor]) -> float:
    """Half the side of a square around 0 that holds all finite points, with a small margin."""
    finite = [cloud[cloud.isfinite().all(1)] for cloud in clouds]
    return 1.05 * max([1e-6, *(float(cloud.abs().max()) for cloud in finite if len(cloud))])


def panels(
    rows: int, columns: int, side: float = 3.4, titles: float = 0.35
) -> tuple[Figure, list[Axes]]:
    """A figure of equal square panels, `side` inches each, row by row; `titles` inches for text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * side, rows * side + titles), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    return figure, list(grid.flat)


def _draw_cloud(axes: Axes, points: Tensor, labels: Labels = None, colour: str = SAMPLE) -> None:
    """Scatter the finite points; the more there are, the smaller and more transparent."""
    xy = points.detach().float().cpu()
    finite = xy.isfinite().all(1)
    few = min(1.0, (500 / len(xy)) ** 0.5)
    colours: str | list[str] = colour
    if labels is not None:
        numbers = torch.as_tensor(labels).cpu()[finite]
        colours = [f"C{int(k) % 10}" for k in numbers]
    size, alpha = max(1.0, 7 * few), max(0.35, few)
    axes.scatter(*xy[finite].T.numpy(), s=size, c=colours, alpha=alpha, linewidths=0)


def _draw_arrows(axes: Axes, field: Field, pitch: float) -> None:
    length = field.arrows.norm(dim=1, keepdim=True)
    longest = length.max().clamp_min(1e-12)
    # v / |v| times sqrt(|v| / longest), without a division by zero where a vector vanishes.
    drawn = field.arrows * pitch / (longest * length.clamp_min(1e-6 * longest)).sqrt()
    style = {"width": 0.005, "headwidth": 4, "headlength": 4, "headaxislength": 3.5}
    exact = {"angles": "xy", "scale_units": "xy", "scale": 1}
    feet, vectors = field.at.cpu().T.numpy(), drawn.cpu().T.numpy()
    axes.quiver(*feet, *vectors, color=SAMPLE, **exact, **style)


def _frame(axes: Sequence[Axes], half: float) -> None:
    """One square window for all panels, and quiet edges."""
    for part in axes:
        part.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        part.tick_params(labelsize=8, color="0.7", labelcolor="0.3")
        part.title.set_fontsize(9)
        for spine in part.spines.values():
            spine.set_color("0.8")
