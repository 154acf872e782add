"""Tables of the page: cells, the rows of a study, its paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffusion_lab.metrics.catalog import METRICS, Metric
from diffusion_lab.runs.sweep_records import as_number

COLUMNS = (
    *("step", "network_calls", "seconds", "agreement", "fd", "fd2", "precision", "recall"),
    *("sw", "mmd", "remaining_variance"),
)
"""Metrics shown of a study, where a row has them."""


class TableCell(NamedTuple):
    """One cell of a table: its text, what it is sorted by if not by that, and its class."""

    text: str
    key: str | None = None
    kind: str = ""


MISSING = TableCell("–", "")


def number_cell(value: float | None, text: str = "") -> TableCell:
    """A number, sorted by its value; `text` is how it is written, if not with five digits."""
    return MISSING if value is None else TableCell(text or f"{value:.5g}", repr(value))


def interval_cell(row: Mapping[str, Any], name: str, spec: str) -> TableCell:
    """`value (low to high)` of a metric, sorted by its value."""
    value, low, high = (as_number(row.get(name + end)) for end in ("", "_low", "_high"))
    text = "" if value is None else format(value, spec)
    if low is not None and high is not None:
        text += f" ({format(low, spec)} to {format(high, spec)})"
    return number_cell(value, text)


def study_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[TableCell]]]:
    """Header and cells of study.json's table: metrics with intervals, stars for its front."""
    names = [name for name in COLUMNS if any(as_number(r.get(name)) is not None for r in rows)]
    if len({row.get("step") for row in rows}) == 1:
        names = [name for name in names if name != "step"]
    front = ["front"] if any(row.get("front") for row in rows) else []
    cells = [
        [
            TableCell(str(row.get("row", ""))),
            *(TableCell("★", "1") if row.get(name) else TableCell("", "0") for name in front),
            *(interval_cell(row, name, METRICS[name].spec) for name in names),
        ]
        for row in rows
    ]
    return ["setting", *front, *(METRICS[name].title for name in names)], cells


def paired_differences(found: object) -> list[tuple[str, list[tuple[str, str, str, bool]]]]:
    """Paired differences of a study: row -> (metric, difference, interval, whether it is one)."""
    tables = []
    for row, parts in found.items() if isinstance(found, dict) else ():
        lines = []
        for name, ends in parts.items() if isinstance(parts, dict) else ():
            value, low, high = (
                as_number(ends.get(end)) if isinstance(ends, dict) else None
                for end in ("value", "low", "high")
            )
            if value is None or low is None or high is None:
                continue
            shown = METRICS.get(name, Metric(name, name, ".4g", ""))
            texts = [format(v, f"+{shown.spec}") for v in (value, low, high)]
            lines.append((shown.title, texts[0], f"{texts[1]} to {texts[2]}", low > 0 or high < 0))
        if lines:
            tables.append((str(row), lines))
    return tables
