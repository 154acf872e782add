"""What `evaluate` found, as tables to be read: figures with intervals, and confusion.

The files are read as plain data and forgivingly: an older run has fewer figures, and a figure that
is not known here is still shown under its own name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusion_lab.metrics.catalog import GROUPS, METRICS, Metric
from diffusion_lab.reporting.axes import Axis, Box

STRIP = Box(width=150, height=18, left=6, right=6, top=0, bottom=0)
"""The drawing of an interval beside its figure."""
SHADES = 9
"""Steps of colour of a confusion matrix, beside none."""

_SECOND = frozenset({"precision2", "recall2", "density2", "coverage2", "vendi2"})
"""The second classifier's view of these is left to metrics.json."""


@dataclass(frozen=True)
class Figure:
    """One line: a figure, its 95 % interval, and what held-out real data get."""

    title: str
    value: str
    interval: str
    real: str
    meaning: str
    strip: tuple[float, float, float, float | None] | None
    """Box units of low end, value, high end and real data, for a small drawing."""


@dataclass(frozen=True)
class TableCell:
    """One cell of a table: its text, what it is sorted by, and a class for its shade."""

    text: str
    key: str
    shade: str = ""


def groups_of(figures: Mapping[str, Any]) -> list[tuple[str, list[Figure]]]:
    """The figures of metrics.json, grouped; groups without any are left out."""
    found = []
    for title in GROUPS:
        rows = [row for row in METRICS.values() if row.group == title]
        lines = [_figure(figures, row) for row in rows if number(figures.get(row.name)) is not None]
        if lines:
            found.append((title, lines))
    others = [_figure(figures, Metric(name, name, ".5g", "")) for name in _unknown(figures)]
    return [*found, ("Others", others)] if others else found


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _unknown(figures: Mapping[str, Any]) -> Iterator[str]:
    """Further figures that have an interval."""
    for name, value in figures.items():
        has = number(value) is not None and number(figures.get(f"{name}_low")) is not None
        if has and name not in METRICS and name not in _SECOND:
            yield name


def _figure(figures: Mapping[str, Any], row: Metric) -> Figure:
    name, spec = row.name, row.spec
    value, low, high, real = (
        number(figures.get(name + end)) for end in ("", "_low", "_high", "_real")
    )
    assert value is not None, name  # the caller has looked
    inside = low is not None and high is not None
    return Figure(
        title=row.title,
        value=format(value, spec),
        interval=f"{format(low, spec)} to {format(high, spec)}" if inside else "",
        real="" if real is None else format(real, spec),
        meaning=row.meaning,
        strip=_strip(low, value, high, real),
    )


def _strip(
    low: float | None, value: float, high: float | None, real: float | None
) -> tuple[float, float, float, float | None] | None:
    """Where an interval, its figure and that of real data stand in a strip of their own."""
    if low is None or high is None:
        return None
    ends = [low, value, high, *([] if real is None else [real])]
    if min(ends) == max(ends):
        return None
    axis = Axis(min(ends), max(ends), STRIP.across, False)
    return axis(low), axis(value), axis(high), None if real is None else axis(real)


def confusion(figures: Mapping[str, Any]) -> tuple[list[str], list[list[TableCell]]] | None:
    """The confusion matrix as names of classes and shaded cells; None where it is not kept.

    Args:
        figures: of metrics.json; ``confusion`` are counts, row = asked, column = read, and
            ``class_names`` their names (numbers without them).
    """
    counts = figures.get("confusion")
    if not isinstance(counts, list) or not counts:
        return None
    if not all(isinstance(row, list) and len(row) == len(counts) for row in counts):
        return None
    names = figures.get("class_names")
    if not isinstance(names, list) or len(names) != len(counts):
        names = list(range(len(counts)))
    values = [[number(count) or 0.0 for count in row] for row in counts]
    return [str(name) for name in names], [_shaded(row) for row in values]


def _shaded(row: Sequence[float]) -> list[TableCell]:
    """Cells of one class asked for, each coloured by its share."""
    total = sum(row) or 1.0
    return [
        TableCell(
            f"{count:g}" if count else "·",
            f"{count:g}",
            f"shade{math.ceil(SHADES * count / total)}" if count else "",
        )
        for count in row
    ]


def per_class(figures: Mapping[str, Any]) -> list[list[TableCell]]:
    """Class, share read as asked and interval, the worst first."""
    shares, lows, highs = (
        figures.get(name) or [] for name in ("per_class", "per_class_low", "per_class_high")
    )
    names = figures.get("class_names") or []
    rows = []
    for k, share in enumerate(shares if isinstance(shares, list) else []):
        if number(share) is None:
            continue
        name = str(names[k]) if k < len(names) else str(k)
        ends = [number(ends[k]) if k < len(ends) else None for ends in (lows, highs)]
        between = "" if None in ends else f"{ends[0]:.1%} to {ends[1]:.1%}"
        cells = [
            TableCell(name, name),
            TableCell(f"{share:.1%}", repr(share)),
            TableCell(between, between),
        ]
        rows.append((share, cells))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]
