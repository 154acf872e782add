"""What `evaluate study=NAME` left in study.json, as tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_lab.metrics.catalog import METRICS, Metric
from diffusion_lab.reporting.scoring import TableCell, number

COLUMNS = (
    *("step", "network_calls", "seconds", "agreement", "fd", "fd2", "precision", "recall"),
    *("sw", "mmd", "remaining_variance"),
)
"""Figures shown of a study, where a row has them."""


def study_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[TableCell]]]:
    """Header and cells of study.json's table: figures with intervals, stars for its front."""
    columns = [name for name in COLUMNS if any(number(row.get(name)) is not None for row in rows)]
    if len({row.get("step") for row in rows}) == 1:
        columns = [name for name in columns if name != "step"]
    starred = any(row.get("front") for row in rows)
    header = [
        "setting",
        *(["front"] if starred else []),
        *(METRICS[name].title for name in columns),
    ]
    return header, [
        [TableCell(str(row.get("row", "")), str(row.get("row", "")))]
        + ([TableCell("★" if row.get("front") else "", "1" if row.get("front") else "0")] * starred)
        + [interval_cell(row, name, METRICS[name].spec) for name in columns]
        for row in rows
    ]


def interval_cell(row: Mapping[str, Any], name: str, spec: str) -> TableCell:
    """`value (low to high)` of a figure, sorted by its value."""
    value, low, high = (number(row.get(name + end)) for end in ("", "_low", "_high"))
    if value is None:
        return TableCell("–", "")
    text = format(value, spec)
    if low is not None and high is not None:
        text += f" ({format(low, spec)} to {format(high, spec)})"
    return TableCell(text, repr(value))


def paired_differences(found: object) -> list[tuple[str, list[tuple[str, str, str, bool]]]]:
    """Paired differences of a study: row -> (figure, difference, interval, whether it is one)."""
    tables = []
    for row, parts in found.items() if isinstance(found, dict) else ():
        lines = []
        for name, ends in parts.items() if isinstance(parts, dict) else ():
            value, low, high = (
                number(ends.get(end)) if isinstance(ends, dict) else None
                for end in ("value", "low", "high")
            )
            if value is None or low is None or high is None:
                continue
            shown = METRICS.get(name, Metric(name, name, ".4g", ""))
            sure = low > 0 or high < 0
            texts = [format(v, f"+{shown.spec}") for v in (value, low, high)]
            lines.append((shown.title, texts[0], f"{texts[1]} to {texts[2]}", sure))
        if lines:
            tables.append((str(row), lines))
    return tables
