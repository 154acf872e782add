"""The tables of a study as text: Markdown for people, CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_lab.figures.study_figures import Figures, finite_value, known
from diffusion_lab.metrics.catalog import METRICS, metric


def with_speedup(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """The rows, each with `speedup`: the first row's seconds over its own."""
    first = rows[0]["seconds"]
    return [{**row, "speedup": first / row["seconds"] if row["seconds"] else None} for row in rows]


def markdown(rows: Sequence[Figures], names: Sequence[str]) -> str:
    """A Markdown table, padded so that it reads well as plain text too.

    A metric with an interval is followed by it; a row on the front (`front`) has a star; columns
    that no row has are left out.
    """
    names = known(rows, names)
    lines = [["row", *(metric(name).title for name in names)]]
    stars = [" *" if row.get("front") else "" for row in rows]
    lines += [
        [f"{row['row']}{star}", *(_cell(row, name) for name in names)]
        for row, star in zip(rows, stars, strict=True)
    ]
    return _padded(lines, "l" + "r" * len(names))


def _padded(lines: Sequence[Sequence[str]], sides: str) -> str:
    """A Markdown table of lines, the first its heading, each column aligned "l" or "r"."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(sides))]
    ends = {"l": "-", "r": ":"}
    ruler = ["-" * (w - 1) + ends[side] for w, side in zip(widths, sides, strict=True)]
    align = {"l": str.ljust, "r": str.rjust}
    padded = [
        " | ".join(align[side](t, w) for t, w, side in zip(line, widths, sides, strict=True))
        for line in [lines[0], ruler, *lines[1:]]
    ]
    return "\n".join(f"| {line} |" for line in padded)


def difference_table(differences: Mapping[str, Mapping[str, float]], name: str, first: str) -> str:
    """A Markdown table of the differences of a row from the first, with what each of them says.

    Args:
        differences: For each metric of the catalog `value` (this row's less the first's), `low` and
            `high`; others are left out.
        name: The row.
        first: The row it is compared with.
    """
    lines = [["metric", "difference", "95 % interval", ""]]
    for key, found in differences.items():
        if key not in METRICS:
            continue
        shown = METRICS[key]
        spec = f"+{shown.spec}"
        value, low, high = (found[part] for part in ("value", "low", "high"))
        verdict = "no difference shown"
        if low > 0 or high < 0:
            higher = name if low > 0 else first
            lower = first if low > 0 else name
            better = {"high": higher, "low": lower}.get(shown.better)
            verdict = f"{better} is better" if better else f"{higher} has more"
        interval = f"{format(low, spec)} – {format(high, spec)}"
        lines.append([shown.title, format(value, spec), interval, verdict])
    return _padded(lines, "lrrl")


def comma_separated(rows: Sequence[Figures]) -> str:
    """All numbers and texts of all rows as CSV, unrounded."""
    plain = (str, int, float)
    keys = dict.fromkeys(key for row in rows for key, v in row.items() if isinstance(v, plain))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["row", *(key for key in keys if key != "row")], restval="")
    writer.writeheader()
    writer.writerows({k: v for k, v in row.items() if isinstance(v, plain)} for row in rows)
    return text.getvalue()


def _cell(row: Figures, name: str) -> str:
    value = finite_value(row, name)
    if value is None:
        return "–"
    spec = metric(name).spec
    text = format(value, spec)
    ends = [row.get(f"{name}_{end}") for end in ("low", "high")]
    if None in ends:
        return text
    return f"{text} ({format(ends[0], spec)} – {format(ends[1], spec)})"
