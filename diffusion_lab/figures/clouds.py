"""Clouds of points in the plane as pictures: one cloud, two side by side, a row of moments."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
DATA, INK = "#b4bac4", "#3b6ea8"
"""Colours of real points and of what a model drew."""

Labels = Sequence[int] | Tensor | None


def scatter_image(
    points: Tensor,
    labels: Labels = None,
    reference: Tensor | None = None,
    limit: float | None = None,
    size: int = 420,
) -> Image.Image:
    """Draw one cloud without axes, coloured by label.

    Args:
        points: (N, 2), any unit; both axes have the same one.
        labels: N class numbers, or None for one colour.
        reference: (M, 2) points drawn in grey behind, such as data; None for none.
        limit: half the width of the window around 0; None to hold all finite points.
        size: side of the picture, pixels.

    Returns:
        A square RGB picture.

    Raises:
        ValueError: ``points`` is not (N, 2) with N >= 1.
    """
    from matplotlib.figure import Figure

    check_points("points", points)
    figure = Figure(figsize=(size / DPI, size / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    if reference is not None:
        draw_cloud(axes, reference, colour=DATA)
    draw_cloud(axes, points, labels)
    half = window([points]) if limit is None else limit
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    return rendered(figure)


def beside_image(
    samples: Tensor, data: Tensor, labels: Labels = None, data_labels: Labels = None
) -> Image.Image:
    """Draw data and samples side by side, in one window.

    Args:
        samples: (N, 2).
        data: (M, 2) real points; best as many.
        labels: classes of the samples, or None for one colour.
        data_labels: classes of the data, or None for one colour.

    Raises:
        ValueError: points that are not (N, 2) with N >= 1.
    """
    check_points("samples", samples)
    check_points("data", data)
    figure, (left, right) = panels(1, 2)
    draw_cloud(left, data, data_labels, colour=DATA if data_labels is None else INK)
    draw_cloud(right, samples, labels)
    left.set_title(f"data: {len(data):,} points, never trained on")
    right.set_title(f"model: {len(samples):,} samples")
    frame([left, right], window([data, samples]))
    return rendered(figure)


def moments_image(
    x_t: Sequence[Tensor], x0: Sequence[Tensor], times: Sequence[float], labels: Labels = None
) -> Image.Image:
    """The road from noise to data, one column a moment: the state above, the estimate below.

    Args:
        x_t: the cloud (N, 2) at each moment, in the order of sampling.
        x0: the estimate x0-hat at the same moments.
        times: t of each, in [0, 1].
        labels: classes of the points, or None for one colour.

    Raises:
        ValueError: no moments, lists of different lengths, or points that are not (N, 2).
    """
    if not x_t or not len(x_t) == len(x0) == len(times):
        raise ValueError(
            f"moments: {len(x_t)} x_t, {len(x0)} x0 and {len(times)} times; give as many of each, "
            "at least 1"
        )
    for cloud in (*x_t, *x0):
        check_points("points", cloud)
    figure, axes = panels(2, len(x_t), side=1.8)
    for column, time in enumerate(times):
        draw_cloud(axes[column], x_t[column], labels)
        draw_cloud(axes[len(x_t) + column], x0[column], labels)
        axes[column].set_title(f"t = {time:.3g}")
    axes[0].set_ylabel("state $x_t$")
    axes[len(x_t)].set_ylabel(r"estimate $\hat{x}_0$")
    for part in axes:
        part.set(xticks=(), yticks=())
    # Near pure noise an estimate is the network's error over alpha and may lie anywhere.
    frame(axes, window(x_t))
    return rendered(figure)


def check_points(name: str, points: Tensor) -> None:
    """Refuse what cannot be drawn in the plane, naming the argument."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"{name}={tuple(points.shape)}: a scatter plot needs (N, 2) with N >= 1")


def window(clouds: Iterable[Tensor]) -> float:
    """Half the side of a square around 0 that holds all finite points, with a small margin."""
    finite = [cloud[cloud.isfinite().all(1)] for cloud in clouds]
    return 1.05 * max([1e-6, *(float(cloud.abs().max()) for cloud in finite if len(cloud))])


def draw_cloud(axes: Axes, points: Tensor, labels: Labels = None, colour: str = INK) -> None:
    """Scatter the finite points; the more there are, the smaller and more transparent."""
    xy = points.detach().float().cpu()
    kept = xy.isfinite().all(1)
    few = min(1.0, (500 / len(xy)) ** 0.5)
    colours: str | list[str] = colour
    if labels is not None:
        numbers = torch.as_tensor(labels).cpu()[kept]
        colours = [f"C{int(k) % 10}" for k in numbers]
    size, alpha = max(1.0, 7 * few), max(0.35, few)
    axes.scatter(*xy[kept].T.numpy(), s=size, c=colours, alpha=alpha, linewidths=0)


def panels(
    rows: int, columns: int, side: float = 3.4, titles: float = 0.35
) -> tuple[Figure, list[Axes]]:
    """A figure of equal square panels, `side` inches each, row by row; `titles` inches for text."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * side, rows * side + titles), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    return figure, list(grid.flat)


def frame(axes: Sequence[Axes], half: float) -> None:
    """One square window for all panels, and quiet edges."""
    for part in axes:
        part.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        part.tick_params(labelsize=8, color="0.7", labelcolor="0.3")
        part.title.set_fontsize(9)
        for spine in part.spines.values():
            spine.set_color("0.8")


def rendered(figure: Figure) -> Image.Image:
    """The figure as an RGB picture, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")
