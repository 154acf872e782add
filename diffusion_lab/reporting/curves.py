"""Curves as numbers for inline SVG: positions in a fixed box, ticks and hover texts.

The page itself draws nothing by computing: everything here is settled when the report is written,
so that it needs no script to show curves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from diffusion_lab.reporting.spread import spread

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 26
MOST_POINTS = 160
LOG_SPAN = 5.0
MOST_STEPS = 4
"""Steps shown in a chart over the noise level."""
_LEVEL = re.compile(r"(.+)_by_level/(\d+)-(\d+)")

Point = tuple[float, float]


@dataclass(frozen=True)
class Dot:
    """One point of a curve: where it stands in the box, and what hovering over it says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """One metric of a chart."""

    name: str
    dots: tuple[Dot, ...]

    @property
    def path(self) -> str:
        """The ``points`` attribute of an SVG polyline."""
        return " ".join(f"{dot.x:.1f},{dot.y:.1f}" for dot in self.dots)


@dataclass(frozen=True)
class Tick:
    """A grid line: its place along the axis, in box units, and its text."""

    place: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Curves in one box with common axes.

    Over the step these are metrics that share a last name (train/loss and val/loss share "loss");
    over the noise level they are several steps of one metric.
    """

    title: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    logarithmic: bool
    axis: str = "step"


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
    made = [_chart(title, series) for title, series in groups.items()]
    made += [
        _chart(f"{name} by noise level, %", _levels(values), "noise level")
        for name, values in by_level.items()
    ]
    return sorted(made, key=lambda chart: ("loss" not in chart.title, chart.title))


def _levels(values: Mapping[float, Sequence[Point]]) -> dict[str, list[Point]]:
    """A few steps, evenly chosen, first and last included: "step 19" -> (level, value) pairs."""
    steps = sorted({step for points in values.values() for step, _ in points})
    rows = [(level, dict(values[level])) for level in sorted(values)]
    return {
        f"step {step:g}": [(level, row[step]) for level, row in rows if step in row]
        for step in (steps[k] for k in spread(len(steps), MOST_STEPS))
    }


def _chart(title: str, series: Mapping[str, Sequence[Point]], axis: str = "step") -> Chart:
    """Place several curves in one box with common axes."""
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    # A loss falls fast and then creeps: where the top is far above most values, creeping shows
    # on a logarithmic axis only. (A learning rate that falls to zero keeps its straight line.)
    logarithmic = min(values) > 0 and max(values) / median(values) > LOG_SPAN
    across = _Axis(min(steps), max(steps), LEFT, WIDTH - RIGHT, False)
    up = _Axis(min(values), max(values), HEIGHT - BOTTOM, TOP, logarithmic)
    lines = [
        Line(
            name,
            tuple(
                Dot(across(step), up(value), f"{name} = {value:.5g} at {axis} {step:g}")
                for step, value in points
            ),
        )
        for name, points in series.items()
    ]
    return Chart(title, tuple(lines), across.ticks(), up.ticks(), logarithmic, axis)


class _Axis:
    """A map from values to box units, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self.low, self.high, self.log = low, high, log
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> tuple[Tick, ...]:
        """Round numbers inside the axis."""
        values = self._decades() if self.log else self._rounds()
        return tuple(Tick(self(value), f"{value:g}") for value in values)

    def _rounds(self) -> list[float]:
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= max(f for f in (1, 2, 5) if f == 1 or f * step <= (self.high - self.low) / 3)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        values = [f * 10.0**k for k in range(first, last + 1) for f in factors]
        return [value for value in values if self.low <= value <= self.high]
