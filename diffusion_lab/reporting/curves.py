"""Curves as numbers for inline SVG: positions in a fixed box, ticks and values.

The page itself draws nothing by computing: everything here is settled when the report is written,
so that it needs no script to show curves. The script adds the line that follows the pointer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from diffusion_lab.metrics.catalog import LOGGED
from diffusion_lab.reporting.axes import Axis, Box, Tick
from diffusion_lab.runs.records import Point
from diffusion_lab.spread import spread

BOX = Box(width=440, height=230, left=56, right=10, top=10, bottom=26)
MOST_POINTS = 160
LOG_SPAN = 5.0
MOST_STEPS = 4
"""Steps shown in a chart over the noise level."""
TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "images_per_second": "images a second",
    **{name.rsplit("/", 1)[-1]: f"{row.title} of samples" for name, row in LOGGED.items()},
}
"""What a metric's last name is called."""
_LEVEL = re.compile(r"(.+)_by_level/(\d+)-(\d+)")


@dataclass(frozen=True)
class Dot:
    """One point of a curve: where it stands in the box, and what it stands for, as text."""

    x: float
    y: float
    at: str
    value: str


@dataclass(frozen=True)
class Line:
    """One metric of a chart."""

    name: str
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        """The ``points`` attribute of an SVG polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)

    @property
    def places(self) -> str:
        """Where along the axis its dots are, one word each."""
        return " ".join(dot.at for dot in self.dots)

    @property
    def values(self) -> str:
        """The values of its dots, one word each."""
        return " ".join(dot.value for dot in self.dots)


@dataclass(frozen=True)
class Chart:
    """Curves in one box with common axes.

    Over the step these are metrics that share a last name (train/loss and val/loss share "loss"),
    or one metric of several runs; over the noise level they are several steps of one metric.
    """

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    logarithmic: bool
    axis: str = "step"
    crowded: bool = False
    box: Box = BOX


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Average runs of neighbours so that at most ``most`` points remain; the mean is kept."""
    size = -(-len(points) // most)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(value for _, value in group) / len(group)) for group in groups]


def charts(metrics: Mapping[str, Sequence[Point]]) -> list[Chart]:
    """Make one chart for each last name.

    Args:
        metrics: name -> (step, value) pairs in order; values that are not finite are left out.

    Returns:
        Charts, those that hold a loss first, then by title. Metrics NAME_by_level/LOW-HIGH (in per
        cent, as `val/loss_by_level/00-10`) make one chart together, over the noise level.
    """
    groups: dict[str, dict[str, list[Point]]] = {}
    by_level: dict[str, dict[float, list[Point]]] = {}
    for name, points in metrics.items():
        finite = [point for point in points if math.isfinite(point[1])]
        level = _LEVEL.fullmatch(name)
        if finite and level:
            middle = (float(level[2]) + float(level[3])) / 2
            by_level.setdefault(level[1], {})[middle] = finite
        elif finite:
            groups.setdefault(name.rsplit("/", 1)[-1], {})[name] = thin(finite)
    made = [chart_of(TITLES.get(title, title), series) for title, series in groups.items()]
    made += [
        chart_of(f"{name} by noise level, %", _levels(values), "noise level")
        for name, values in by_level.items()
    ]
    return sorted(made, key=lambda chart: ("loss" not in chart.title, chart.title))


def overlay(title: str, runs: Mapping[str, Sequence[Point]], most: int = 80) -> Chart | None:
    """One metric of several runs in one chart, each a thin line; None where no run has a value."""
    finite = {
        name: thin([point for point in points if math.isfinite(point[1])], most)
        for name, points in runs.items()
    }
    series = {name: points for name, points in finite.items() if points}
    return chart_of(title, series, crowded=True) if series else None


def chart_of(
    title: str, series: Mapping[str, Sequence[Point]], axis: str = "step", crowded: bool = False
) -> Chart:
    """Place several curves in one box with common axes.

    Args:
        title: what the values are.
        series: name -> (place, value) pairs, all finite, at least one.
        axis: what the places are.
        crowded: so many lines that only the one next to the pointer is named.
    """
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    # A loss falls fast and then creeps: where the top is far above most values, creeping shows
    # on a logarithmic axis only. (A learning rate that falls to zero keeps its straight line.)
    logarithmic = min(values) > 0 and max(values) / median(values) > LOG_SPAN
    across = Axis(min(steps), max(steps), BOX.across, False)
    up = Axis(min(values), max(values), BOX.up, logarithmic)
    lines = [
        Line(
            name,
            tuple(Dot(across(at), up(value), _place(at), f"{value:.5g}") for at, value in points),
        )
        for name, points in series.items()
    ]
    return Chart(title, tuple(lines), across.ticks(), up.ticks(), logarithmic, axis, crowded)


def _levels(values: Mapping[float, Sequence[Point]]) -> dict[str, list[Point]]:
    """A few steps, evenly chosen, first and last included: "step 19" -> (level, value) pairs."""
    steps = sorted({step for points in values.values() for step, _ in points})
    rows = [(level, dict(values[level])) for level in sorted(values)]
    return {
        f"step {step:g}": [(level, row[step]) for level, row in rows if step in row]
        for step in (steps[k] for k in spread(len(steps), MOST_STEPS))
    }


def _place(at: float) -> str:
    """A step, or another place along the axis, in one word."""
    return f"{at:.0f}" if float(at).is_integer() else f"{at:g}"
