"""Parallel coordinates of a sweep: a line a run, the best in front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from diffusion_lab.figures.pictures import rendered
from diffusion_lab.runs.sweep_records import as_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 20.0
"""Largest over smallest value from which an axis of positive numbers is logarithmic."""


def parallel_image(
    rows: Sequence[Mapping[str, Any]], parameters: Sequence[str], metric: str, mode: str = "min"
) -> Image.Image:
    """Draw rows as lines across one upright axis a parameter, and the metric's at the right.

    Args:
        rows: Values by name, numbers or texts; those without a finite metric are left out.
        parameters: Names of the axes; a parameter that is no number in some row has its texts
            evenly spread.
        metric: Name of the last axis, which colours the lines.
        mode: "min" where the smallest value is the best, "max" where the largest is.

    Raises:
        ValueError: No row has the metric.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    ranked = ranking(rows, metric, mode)
    if not ranked:
        raise ValueError(f"metric={metric!r}: no row has a number of that name")
    names = [*parameters, metric]
    figure = Figure(figsize=(max(4.5, 1.7 * len(names)), 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    heights = [_axis(axes, x, [row.get(name) for row in ranked]) for x, name in enumerate(names)]
    colours = colormaps["viridis"]
    for k in reversed(range(len(ranked))):
        share = k / max(1, len(ranked) - 1)
        line = [height[k] for height in heights]
        axes.plot(line, color=colours(0.9 * share), lw=2.6 if k == 0 else 1.2, alpha=0.9)
    axes.set_xticks(range(len(names)), [name.rsplit(".", 1)[-1] for name in names])
    axes.set_yticks([])
    axes.set_xlim(-0.35, len(names) - 0.6)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(ranked)} runs, darker and in front: better {metric}", fontsize=9)
    return rendered(figure)


def ranking(
    rows: Sequence[Mapping[str, Any]], metric: str, mode: str = "min"
) -> list[Mapping[str, Any]]:
    """The rows whose metric is a finite number, the best first."""
    sign = -1 if mode == "max" else 1
    known = [row for row in rows if as_number(row.get(metric)) is not None]
    return sorted(known, key=lambda row: sign * (as_number(row[metric]) or 0.0))


def _axis(axes: Axes, x: int, values: Sequence[Any]) -> list[float]:
    """Draw one upright axis with its marks; gives the height of each value, 0 to 1."""
    numbers = [as_number(value) for value in values]
    keys: Sequence[Any] = numbers if None not in numbers else [str(value) for value in values]
    marks = sorted(set(keys))
    if keys is numbers:
        low, high = marks[0], marks[-1]
        scale = math.log if low > 0 and high / low >= DECADES else float
        span = scale(high) - scale(low)
        place = {mark: (scale(mark) - scale(low)) / span if span else 0.5 for mark in marks}
        marks = marks if len(marks) <= 6 else [low, high]
    else:
        place = {mark: k / max(1, len(marks) - 1) for k, mark in enumerate(marks)}
    axes.axvline(x, color="0.75", lw=0.8, zorder=0)
    for mark in marks:
        text = f"{mark:.4g}" if keys is numbers else mark
        axes.annotate(text, (x, place[mark]), (4, 2), textcoords="offset points", fontsize=7)
    return [place[key] for key in keys]
