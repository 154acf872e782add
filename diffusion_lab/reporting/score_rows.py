"""What `evaluate` and `likelihood` found, as tables of the page: scores with their intervals.

The files are read as plain data and forgivingly: an older run has fewer metrics, and one that the
catalog does not know is still shown under its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_lab.metrics.catalog import GROUPS, METRICS, Metric
from diffusion_lab.reporting.charts import Axis
from diffusion_lab.reporting.html_tables import TableCell
from diffusion_lab.reporting.inline_images import ImageInliner
from diffusion_lab.runs.records import RunFolder, show
from diffusion_lab.runs.sweep_records import as_number

STRIP = (6.0, 144.0)
"""Ends of the drawing of an interval beside its score."""
PICTURES = {
    "confusion": "class requested (down) and predicted (across)",
    "nearest": "samples nearest to a training image, each above it, with their distance",
    "density": "density of test points and of samples",
}
"""What the pictures of samples that were scored show."""
_SECOND = frozenset({"precision2", "recall2", "density2", "coverage2", "vendi2"})
"""The second classifier's view of these is left to metrics.json."""


@dataclass(frozen=True)
class ScoreRow:
    """One line: a metric, its 95 % interval, and what held-out real data get."""

    title: str
    value: str
    interval: str
    real: str
    meaning: str
    strip: tuple[float, float, float, float | None] | None = None
    """Where low end, value, high end and real data stand in a small drawing."""


def scores(run: RunFolder, inline: ImageInliner) -> dict[str, Any]:
    """Scores with intervals, classes, and pictures of the samples that were scored."""
    groups = score_groups(run.evaluation)
    if as_number(run.likelihood.get("mean")) is not None:
        groups.append(("Likelihood of test images", [_likelihood(run)]))
    pictures = [(path.stem.removeprefix("metrics_"), inline(path)) for path in run.scored]
    return {
        "groups": groups,
        "count": show(run.evaluation.get("num_samples")),
        "calls": show(run.evaluation.get("network_calls")),
        "per_class": per_class(run.evaluation),
        "pictures": [(PICTURES.get(name, name), found) for name, found in pictures if found],
    }


def score_groups(metrics: Mapping[str, Any]) -> list[tuple[str, list[ScoreRow]]]:
    """The metrics of metrics.json, grouped; groups without any are left out."""
    found = {title: [row for row in METRICS.values() if row.group == title] for title in GROUPS}
    found["Others"] = [Metric(name, name, ".5g", "") for name in _unknown(metrics)]
    groups = {
        title: [
            _score(metrics, row) for row in rows if as_number(metrics.get(row.name)) is not None
        ]
        for title, rows in found.items()
    }
    return [(title, lines) for title, lines in groups.items() if lines]


def per_class(metrics: Mapping[str, Any]) -> list[list[TableCell]]:
    """Class, share of samples predicted as requested and its interval, the worst first."""
    shares, lows, highs, names = (
        metrics.get(name) if isinstance(metrics.get(name), list) else []
        for name in ("per_class", "per_class_low", "per_class_high", "class_names")
    )
    rows = []
    for k, value in enumerate(shares):
        share = as_number(value)
        if share is None:
            continue
        name = str(names[k]) if k < len(names) else str(k)
        low, high = (as_number(ends[k]) if k < len(ends) else None for ends in (lows, highs))
        between = "" if low is None or high is None else f"{low:.1%} to {high:.1%}"
        cells = [TableCell(name), TableCell(f"{share:.1%}", repr(share)), TableCell(between)]
        rows.append((share, cells))
    return [cells for _, cells in sorted(rows, key=lambda row: row[0])]


def _unknown(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Further metrics that have an interval."""
    for name in metrics:
        has = all(as_number(metrics.get(name + end)) is not None for end in ("", "_low"))
        if has and name not in METRICS and name not in _SECOND:
            yield name


def _score(metrics: Mapping[str, Any], row: Metric) -> ScoreRow:
    value, low, high, real = (
        as_number(metrics.get(row.name + end)) for end in ("", "_low", "_high", "_real")
    )
    assert value is not None, row.name  # the caller has looked
    strip, between = None, ""
    if low is not None and high is not None:
        between = f"{format(low, row.spec)} to {format(high, row.spec)}"
        ends = [low, value, high, *([] if real is None else [real])]
        if min(ends) < max(ends):
            axis = Axis(min(ends), max(ends), STRIP)
            strip = axis(low), axis(value), axis(high), None if real is None else axis(real)
    known = "" if real is None else format(real, row.spec)
    return ScoreRow(row.title, format(value, row.spec), between, known, row.meaning, strip)


def _likelihood(run: RunFolder) -> ScoreRow:
    """The mean likelihood of likelihood.json with its interval."""
    mean, low, high = (as_number(run.likelihood.get(name)) for name in ("mean", "low", "high"))
    between = "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
    unit, count = show(run.likelihood.get("unit")), show(run.likelihood.get("num_images"))
    return ScoreRow(unit, f"{mean:.4f}", between, "", f"of {count} images; lower is better")
