"""Samples that are points in the plane (toy data) as a scatter plot."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image
from torch import Tensor


def scatter_image(
    points: Tensor,
    labels: Sequence[int] | Tensor | None = None,
    reference: Tensor | None = None,
    limit: float | None = None,
    size: int = 420,
) -> Image.Image:
    """Draw points, coloured by label.

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
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"points={tuple(points.shape)}: a scatter plot needs (N, 2) with N >= 1")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size / 100, size / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    xy = points.detach().float().cpu()
    xy, kept = xy[xy.isfinite().all(1)], xy.isfinite().all(1)
    if reference is not None:
        axes.scatter(*reference.detach().float().cpu().T.numpy(), s=2, c="0.8", linewidths=0)
    colours = "C0" if labels is None else [int(k) for k in labels]
    if not isinstance(colours, str):
        colours = [colour for colour, keep in zip(colours, kept, strict=True) if keep]
    axes.scatter(*xy.T.numpy(), s=4, c=colours, cmap="tab10", linewidths=0)
    half = limit if limit is not None else 1.05 * max(float(xy.abs().max()) if len(xy) else 1, 1e-6)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return Image.open(buffer).convert("RGB")
