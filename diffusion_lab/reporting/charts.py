"""Charts as numbers for inline SVG: positions in a fixed box, ticks and values.

All of it is drawn when the page is written, so that a mail program, a printer or a browser without
scripts shows it. The script of the page adds what moves: the values under the pointer, finger or
arrow keys, lines that hide at a click on their name, and the zoom.

A library would bring these. Three whose wheels hold their JavaScript were tried on the curves of a
run: from a file, in Chromium, with the content policy of the page. Plotly 7.1 makes a page of
4.8 MB before its first picture, where 5 MB is the limit; Bokeh 3.9 one of 1.3 MB, Vega-Lite (in
vl-convert 1.9) one of 1.0 MB; these charts and their script make 0.04 MB. All three write inline
styles, which the policy would have to admit; none follows the dark scheme or reads values out to
the keyboard by itself, and each leaves the page empty where scripts do not run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from diffusion_lab.metrics.catalog import LOGGED
from diffusion_lab.runs.records import Point
from diffusion_lab.runs.sweep_records import SweepFolder, as_number, short
from diffusion_lab.spread import spread

MOST_POINTS = 160
LOG_ABOVE_MEDIAN, LOG_ABOVE_LEAST = 5.0, 10.0
"""Largest value divided by the median (of a parameter, by the least) of a logarithmic axis."""
MOST_STEPS = 4
"""Steps shown in a chart over the noise level."""
MOST_TICKS = 6
LINE_COLOURS, RANK_COLOURS = 6, 7
"""Colours of lines; steps of colour from the best to the worst of many."""
X_ENDS, Y_ENDS = (56.0, 430.0), (204.0, 10.0)
"""Ends of the two axes, left to right and bottom to top, in units of the drawing."""
INSET = 34
"""Room at both ends of the axis of a parameter, for its labels."""
CHART_TITLES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "images_per_second": "images per second",
    **{name.rsplit("/", 1)[-1]: f"{row.title} of samples" for name, row in LOGGED.items()},
}
"""What a metric's last name is called."""
_LEVEL = re.compile(r"(.+)_by_level/(\d+)-(\d+)")


@dataclass
class Axis:
    """Maps [low, high] to coordinates `ends`; `names` are tick labels by value, if it has any."""

    low: float
    high: float
    ends: tuple[float, float]
    log: bool = False
    names: Mapping[float, str] | None = None

    def __post_init__(self) -> None:
        if self.low == self.high:
            room = abs(self.low) / 2 or 0.5
            self.low, self.high = self.low - room, self.high + room

    def __call__(self, value: float) -> float:
        """Where a value is drawn."""
        start, end = self.ends
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return start + (end - start) * (value - low) / (high - low)

    def text(self, value: float) -> str:
        """A value in one word."""
        name = self.names and self.names.get(value)
        return name.replace(" ", "\N{NO-BREAK SPACE}") if name else f"{value:.10g}"

    def ticks(self) -> dict[float, str]:
        """Texts by their place: its names, or round numbers."""
        if self.names is not None:
            shown = [*self.names.items()][:: -(-len(self.names) // MOST_TICKS)]
            return {self(value): short(name, 4 + 24 // len(shown)) for value, name in shown}
        factors = (1, 2, 5) if not self.log or self.high / self.low <= 100 else (1,)
        decades = [10.0**k for k in range(-30, 30)] if self.log else []
        values = [f * ten for ten in decades for f in factors if self.low <= f * ten <= self.high]
        if len(values) < 2:
            third = (self.high - self.low) / 3
            power = 10.0 ** math.floor(math.log10(third))
            step = max(f * power for f in (1, 2, 5) if f == 1 or f * power <= third)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            values = [round(k * step, 12) for k in range(first, last + 1)]
        return {self(value): f"{value:g}" for value in values}


class Dot(NamedTuple):
    """One point of a line: where it is drawn, and what it stands for, as text."""

    x: float
    y: float
    at: str
    value: str


class Series(NamedTuple):
    """One metric, run or job of a chart; its colour is a class of the style sheet."""

    name: str
    dots: list[Dot]
    colour: str


@dataclass(frozen=True)
class Chart:
    """Lines with common axes.

    Over the step these are metrics that share a last name (train/loss and val/loss share "loss"),
    or one metric of several runs; over the noise level, steps of one metric; over a parameter of a
    sweep, jobs. In a crowded chart only the line next to the pointer is named.
    """

    title: str
    lines: list[Series]
    across: Axis
    up: Axis
    axis: str = "step"
    note: str = ""
    crowded: bool = False


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Average neighbouring points so that at most `most` of them remain; the mean is kept."""
    size = max(1, -(-len(points) // most))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(value for _, value in group) / len(group)) for group in groups]


def charts(metrics: Mapping[str, Sequence[Point]]) -> list[Chart]:
    """Make one chart for each last name.

    Args:
        metrics: Name -> (step, value) pairs in order; values that are not finite are left out.

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
    made = [_chart(CHART_TITLES.get(last, last), [*rows.items()]) for last, rows in groups.items()]
    made += [
        _chart(f"{name} by noise level, %", _levels(values), "noise level")
        for name, values in by_level.items()
    ]
    return sorted(made, key=lambda chart: ("loss" not in chart.title, chart.title))


def overlay(title: str, runs: Mapping[str, Sequence[Point]], most: int = 80) -> Chart | None:
    """One metric of several runs, the best first, in one chart; None where no run has a value."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in runs.items()}
    series = [(name, thin(points, most)) for name, points in finite.items() if points]
    return _chart(title, series, crowded=f"{len(series)} runs") if series else None


def effects(sweep: SweepFolder, metric: str) -> list[Chart]:
    """All jobs over each parameter that takes several values, and a line that joins their means."""
    found = []
    for name in sweep.parameters:
        jobs = [job for job in sweep.ranked(metric) if name in job.varied]
        if len({job.varied[name] for job in jobs}) > 1:
            across, places = parameter_axis([job.varied[name] for job in jobs])
            points = [(places[job.varied[name]], job.numbers[metric]) for job in jobs]
            series = [(job.label, [point]) for job, point in zip(jobs, points, strict=True)]
            means = [
                (at, fmean(v for x, v in points if x == at)) for at in sorted({*places.values()})
            ]
            note = f"{metric}; the line joins means"
            found.append(_chart(name, [*series, ("mean", means)], name, across, note))
    return found


def _chart(
    title: str,
    series: Sequence[tuple[str, Sequence[Point]]],
    axis: str = "step",
    across: Axis | None = None,
    crowded: str = "",
) -> Chart:
    """Place lines of finite values with common axes; `crowded` is the note of a crowded chart.

    A loss falls fast and then creeps, and a few jobs diverge: where the top is far above most
    values, the axis up is logarithmic. (A learning rate that falls to zero keeps its line.)
    """
    steps = [step for _, points in series for step, _ in points]
    values = [value for _, points in series for _, value in points]
    across = across or Axis(min(steps), max(steps), X_ENDS)
    log = min(values) > 0 and max(values) / median(values) > LOG_ABOVE_MEDIAN
    up = Axis(min(values), max(values), Y_ENDS, log)
    lines = []
    for k, (name, points) in enumerate(series):
        dots = [Dot(across(x), up(y), across.text(x), f"{y:.5g}") for x, y in points]
        hue = round((RANK_COLOURS - 1) * k / max(len(series) - 1, 1))
        lines.append(Series(name, dots, f"hue{hue}" if crowded else f"line{k % LINE_COLOURS}"))
    return Chart(title, lines, across, up, axis, crowded or f"over the {axis}", bool(crowded))


def parameter_axis(values: Sequence[str]) -> tuple[Axis, dict[str, float]]:
    """An axis across of the values of one parameter as typed, and where on it each stands.

    Numbers stand where they belong, on a logarithmic axis where they span a decade; anything else
    is spread evenly, in the order given.
    """
    names = list(dict.fromkeys(values))
    numbers = [number for name in names if (number := as_number(name)) is not None]
    numeric = len(numbers) == len(names) and len(set(numbers)) > 1
    places = dict(zip(names, numbers if numeric else map(float, range(len(names))), strict=True))
    low, high = min(places.values()), max(places.values())
    log = numeric and low > 0 and high / low >= LOG_ABOVE_LEAST
    few = not numeric or len(places) <= MOST_TICKS
    ends = (X_ENDS[0] + INSET, X_ENDS[1] - INSET)
    texts = {place: name for name, place in sorted(places.items(), key=lambda item: item[1])}
    return Axis(low, high, ends, log, texts if few else None), places


def _levels(values: Mapping[float, Sequence[Point]]) -> list[tuple[str, list[Point]]]:
    """A few steps, evenly chosen, first and last included: "step 19" -> (level, value) pairs."""
    steps = sorted({step for points in values.values() for step, _ in points})
    rows = [(level, dict(values[level])) for level in sorted(values)]
    return [
        (f"step {step:g}", [(level, row[step]) for level, row in rows if step in row])
        for step in (steps[k] for k in spread(len(steps), MOST_STEPS))
    ]
