"""The table of a study, and the page that shows its rows side by side."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_lab.metrics.catalog import METRICS, metric
from diffusion_lab.reporting.clouds import scatter_image
from diffusion_lab.reporting.grids import BACKGROUND, INK, image_grid

CAPTION = 22
"""Height of a caption on a page, pixels."""

Figures = Mapping[str, Any]
"""The figures of one row by name, and its name as `row`."""


def with_speedup(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """The rows, each with `speedup`: the first row's seconds over its own."""
    first = rows[0]["seconds"]
    return [{**row, "speedup": first / row["seconds"] if row["seconds"] else None} for row in rows]


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


def markdown(rows: Sequence[Figures], names: Sequence[str]) -> str:
    """A Markdown table, padded so that it reads well as plain text too.

    A figure with an interval is followed by it; a row on the front (`front`) has a star.

    Args:
        rows: figures by name, and `row`.
        names: columns; those that no row has are left out.
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
    """A Markdown table of paired differences, with what each of them says.

    Args:
        differences: for each figure of the catalog `value` (this row's less the first's), `low` and
            `high`; others are left out.
        name: the row.
        first: the row it is compared with.
    """
    lines = [["figure", "difference", "95 % interval", ""]]
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
    """All plain figures of all rows as CSV, unrounded."""
    plain = (str, int, float)
    keys = dict.fromkeys(key for row in rows for key, v in row.items() if isinstance(v, plain))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["row", *(key for key in keys if key != "row")], restval="")
    writer.writeheader()
    writer.writerows({k: v for k, v in row.items() if isinstance(v, plain)} for row in rows)
    return text.getvalue()


def image_page(names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
    """A captioned line of images a row; what stands one above the other came from one noise.

    Args:
        names: captions.
        samples: for each row (N, C, H, W) in [-1, 1].
    """
    scale = 2 if samples[0].shape[-1] <= 40 else 1
    blocks = [image_grid(block, len(block), scale).convert("RGB") for block in samples]
    page = _blank(max(b.width for b in blocks), sum(b.height + CAPTION for b in blocks))
    top = 0
    for name, block in zip(names, blocks, strict=True):
        _caption(page, (6, top + CAPTION - 6), name, "ls")
        page.paste(block, (0, top + CAPTION))
        top += CAPTION + block.height
    return page


def point_page(
    names: Sequence[str], samples: Sequence[Tensor], reference: Tensor, columns: int = 4
) -> Image.Image:
    """A captioned scatter plot a row, all of one window, over real points in grey.

    Args:
        names: captions.
        samples: for each row (N, 2).
        reference: (M, 2) real points.
        columns: plots side by side.
    """
    limit, size = 1.4 * float(reference.abs().max()), 280
    columns = min(columns, len(names))
    page = _blank(columns * (size + 4) + 4, -(-len(names) // columns) * (size + CAPTION + 4) + 4)
    for k, (name, points) in enumerate(zip(names, samples, strict=True)):
        left = 4 + (k % columns) * (size + 4)
        top = 4 + (k // columns) * (size + CAPTION + 4)
        _caption(page, (left + size // 2, top + CAPTION - 6), name, "ms")
        plot = scatter_image(points, reference=reference, limit=limit, size=size)
        page.paste(plot, (left, top + CAPTION))
    return page


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (BACKGROUND,) * 3)


def _caption(page: Image.Image, where: tuple[int, int], text: str, anchor: str) -> None:
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(page).text(where, text, fill=(INK,) * 3, font=font, anchor=anchor)


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
