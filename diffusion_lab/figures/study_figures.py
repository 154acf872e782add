"""Pictures of a study's rows: bars, a curve over a figure, points over a figure.

A panel shows one figure; figures that no row has get no panel, so that one description serves
images and points. The dashed line is where real data would stand.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffusion_lab.figures.pictures import rendered_png
from diffusion_lab.metrics.catalog import metric

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, DPI = 8.0, 150  # inches, pixels an inch
LOG_SPAN = 10.0
"""Largest over smallest value from which an axis is logarithmic."""
COLOUR, GREY = "#2166ac", "#666666"
MARKS = "osD^vP*X"


Figures = Mapping[str, Any]
"""The figures of one row by name, and its name as `row`."""


def known(rows: Sequence[Figures], names: Sequence[str]) -> list[str]:
    """Those of the names that at least one row has a finite value for."""
    return [name for name in names if any(finite_value(row, name) is not None for row in rows)]


def finite_value(row: Figures, name: str) -> float | None:
    """A row's figure; None where it has none, or one that is not finite."""
    metric(name)
    value = row.get(name)
    return value if value is not None and math.isfinite(value) else None


def on_front(rows: Sequence[Figures], x: str, y: str) -> list[bool]:
    """Which rows no other one beats in two figures at once (the Pareto front).

    Args:
        rows: figures by name.
        x: one figure.
        y: the other; a row without a value of both is not on the front.
    """
    signs = [-1.0 if metric(name).better == "high" else 1.0 for name in (x, y)]
    values = [(finite_value(row, x), finite_value(row, y)) for row in rows]
    points = [None if a is None or b is None else (signs[0] * a, signs[1] * b) for a, b in values]

    def beaten(p: tuple[float, float]) -> bool:
        others = (q for q in points if q is not None and q != p)
        return any(q[0] <= p[0] and q[1] <= p[1] for q in others)

    return [p is not None and not beaten(p) for p in points]


class StudyFigure(ABC):
    """A row of panels.

    Args:
        y: figures to show, one panel each.

    Raises:
        ValueError: a figure that does not exist.
    """

    height = 3.2
    """Inches."""

    def __init__(self, y: Sequence[str]) -> None:
        for name in y:
            metric(name)
        self.y = list(y)

    def marked(self, rows: Sequence[Figures]) -> list[Figures]:
        """The rows, with what the figure finds out about them (`front`)."""
        return list(rows)

    def png(self, rows: Sequence[Figures]) -> bytes:
        """The picture of rows (figures by name, and `row`) as a PNG file."""
        from matplotlib.figure import Figure

        names = known(rows, self.y)
        size = (WIDTH, self.inches(len(rows)))
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        for k, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), k + 1)
            axes.spines[["top", "right"]].set_visible(False)
            self.draw(axes, rows, name, first=k == 0)
        _legend(figure)
        return rendered_png(figure)

    def inches(self, rows: int) -> float:
        """Height for that many rows."""
        return self.height

    @abstractmethod
    def draw(self, axes: Axes, rows: Sequence[Figures], name: str, first: bool) -> None:
        """Draw one panel."""


class Bars(StudyFigure):
    """One bar a row, its value written at its end; the arguments are those of `StudyFigure`."""

    def inches(self, rows: int) -> float:
        """A bar has a fixed thickness."""
        return 1.2 + 0.42 * rows

    def draw(self, axes: Axes, rows: Sequence[Figures], name: str, first: bool) -> None:
        """Horizontal bars, the first row on top."""
        values = [finite_value(row, name) for row in rows]
        finite = [value for value in values if value is not None]
        high = max([*finite, _real(rows, name) or 0.0])
        if _wide(name, finite):
            axes.set(xscale="log", xlim=(min([*finite, 1.0]) / 2, high * 6))
            _plain_numbers(axes.xaxis, [*finite, high * 6])
        else:
            axes.set_xlim(0, high * 1.35)
        axes.barh(range(len(rows)), [v or 0.0 for v in values], height=0.62, color=COLOUR)
        for k, value in enumerate(values):
            text = "–" if value is None else format(value, metric(name).spec)
            axes.annotate(
                text, (value or 0.0, k), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=9, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [str(row["row"]) for row in rows] if first else [])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(metric(name).title)
        _ideal(axes, rows, name, axes.axvline)


class Curve(StudyFigure):
    """A line through the rows over one of their figures.

    Args:
        x: figure along the axis.
        y: figures to show, one panel each.
    """

    def __init__(self, x: str, y: Sequence[str]) -> None:
        super().__init__(y)
        metric(x)
        self.x = x

    def draw(self, axes: Axes, rows: Sequence[Figures], name: str, first: bool) -> None:
        """A line with a mark at each row."""
        points = sorted(_points(rows, self.x, name))
        across, up = [p[0] for p in points], [p[1] for p in points]
        axes.plot(across, up, "o-", ms=4, color=COLOUR, clip_on=False)
        _scales(axes, across, up, self.x, name)
        _ideal(axes, rows, name, axes.axhline)


class Scatter(Curve):
    """A named point a row over one of its figures; the arguments are those of `Curve`."""

    def draw(self, axes: Axes, rows: Sequence[Figures], name: str, first: bool) -> None:
        """Points, told apart by the legend under the panels: names beside them would overlap."""
        points = _points(rows, self.x, name)
        for k, (at, height, text) in enumerate(points):
            style = {"ms": 8, "color": f"C{k}", "label": text, "clip_on": False}
            axes.plot([at], [height], MARKS[k % len(MARKS)], **style)
        axes.margins(x=0.15)
        _scales(axes, [p[0] for p in points], [p[1] for p in points], self.x, name)
        _ideal(axes, rows, name, axes.axhline)


class Frontier(Curve):
    """Curves of rows that differ along one key, with intervals, and the Pareto front in grey.

    Rows of one `curve` are joined; the arguments are those of `Curve`.
    """

    height = 4.2

    def marked(self, rows: Sequence[Figures]) -> list[Figures]:
        """Each row with `front`: nothing beats it in x and the first of y at once."""
        front = on_front(rows, self.x, known(rows, self.y)[0])
        return [{**row, "front": star} for row, star in zip(rows, front, strict=True)]

    def draw(self, axes: Axes, rows: Sequence[Figures], name: str, first: bool) -> None:
        """One line a curve, bars for the intervals, and the front as a broad grey line."""
        from matplotlib.ticker import FixedLocator

        curves: dict[str, list[Figures]] = {}
        for row in rows:
            if finite_value(row, self.x) is not None and finite_value(row, name) is not None:
                curves.setdefault(str(row.get("curve", "")), []).append(row)
        for k, (text, members) in enumerate(curves.items()):
            members.sort(key=lambda row: row[self.x])
            beside = 1 + 0.02 * (k - (len(curves) - 1) / 2)  # else intervals hide each other
            x, y = [beside * row[self.x] for row in members], [row[name] for row in members]
            style = {"ms": 5, "lw": 1.2, "elinewidth": 0.8, "color": f"C{k}", "label": text}
            axes.errorbar(x, y, _bars(members, name), fmt=f"{MARKS[k % len(MARKS)]}-", **style)
        front = [row for row, on in zip(rows, on_front(rows, self.x, name), strict=True) if on]
        front.sort(key=lambda row: row[self.x])
        across, up = [row[self.x] for row in front], [row[name] for row in front]
        axes.plot(across, up, "o-", ms=12, color=GREY, lw=7, alpha=0.25, zorder=0.6,
                  markeredgewidth=0, label="best for its cost")  # fmt: skip
        places = [row[self.x] for members in curves.values() for row in members]
        axes.set(xscale="log", xlabel=metric(self.x).title, ylabel=metric(name).title)
        _plain_numbers(axes.xaxis, _apart(places))
        axes.xaxis.set_major_locator(FixedLocator(_apart(places)))
        _ideal(axes, rows, name, axes.axhline)


def _bars(rows: Sequence[Figures], name: str) -> list[list[float]] | None:
    """Lengths of error bars below and above; None where there are no intervals."""
    ends = [(row.get(f"{name}_low"), row.get(f"{name}_high")) for row in rows]
    if any(low is None or high is None for low, high in ends):
        return None
    pairs = list(zip(rows, ends, strict=True))
    return [
        [max(row[name] - low, 0.0) for row, (low, _) in pairs],
        [max(high - row[name], 0.0) for row, (_, high) in pairs],
    ]


def _legend(figure: Figure) -> None:
    """One legend under all panels, each name once."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for mark, text in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(text, mark)
    if found:
        where = {"loc": "outside lower center", "ncols": 4, "frameon": False}
        figure.legend(list(found.values()), list(found), **where)


def _points(rows: Sequence[Figures], x: str, y: str) -> list[tuple[float, float, str]]:
    found = [(finite_value(row, x), finite_value(row, y), str(row["row"])) for row in rows]
    return [(a, b, name) for a, b, name in found if a is not None and b is not None]


def _scales(axes: Axes, x: Sequence[float], y: Sequence[float], x_name: str, name: str) -> None:
    from matplotlib.ticker import FixedLocator

    axes.set(xlabel=metric(x_name).title, ylabel=metric(name).title)
    if _wide(x_name, x):
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis, _apart(x))
        axes.xaxis.set_major_locator(FixedLocator(_apart(x)))
    if _wide(name, y):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis, y)
    elif y:
        axes.set_ylim(0, 1.1 * max([*y, metric(name).ideal or 0.0]))


def _plain_numbers(axis: Axis, values: Sequence[float]) -> None:
    """1, 2, 5, 10 ... on a logarithmic axis, in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 100 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _apart(values: Sequence[float]) -> list[float]:
    """The distinct values, without those so near to a smaller one that ticks would overlap."""
    kept: list[float] = []
    for value in sorted(set(values)):
        if not kept or value > 1.4 * kept[-1]:
            kept.append(value)
    return kept


def _wide(name: str, values: Sequence[float]) -> bool:
    """Whether values of a figure need a logarithmic axis."""
    if metric(name).share or len(values) < 2 or min(values) <= 0:
        return False
    return max(values) / min(values) > LOG_SPAN


def _ideal(axes: Axes, rows: Sequence[Figures], name: str, line: Callable[..., object]) -> None:
    """Mark where real data stand."""
    ideal = _real(rows, name)
    if ideal is not None:
        line(ideal, color=GREY, ls="--", lw=1, zorder=0.5, label="real data")


def _real(rows: Sequence[Figures], name: str) -> float | None:
    """What held-out real data have, as the first row that knows it says; else the ideal."""
    found = [row[f"{name}_real"] for row in rows if row.get(f"{name}_real") is not None]
    return float(found[0]) if found else metric(name).ideal
