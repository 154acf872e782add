"""The table of a study, and the page that shows its rows side by side."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_lab.reporting.grids import BACKGROUND, INK, image_grid
from diffusion_lab.reporting.points import scatter_image

CAPTION = 22
"""Height of a caption on a page, pixels."""

Figures = Mapping[str, Any]
"""The figures of one row by name, and its name as `row`."""


class Column(NamedTuple):
    """How a figure is shown.

    Attributes:
        title: heading and axis label.
        spec: format of a value.
        ideal: what real data would have; None where that means nothing.
        share: of a whole, so that an axis of it starts at 0 and is never logarithmic.
    """

    title: str
    spec: str
    ideal: float | None = None
    share: bool = False


COLUMNS = {
    "step": Column("optimizer steps", ",d"),
    "network_calls": Column("network calls per sample", ",.6g"),
    "seconds": Column("seconds", ",.1f"),
    "speedup": Column("times faster", ",.1f"),
    "agreement": Column("class agreement", ".1%", share=True),
    "fd_ratio": Column("FD ratio", ",.2f", 1.0),
    "sw_ratio": Column("SW ratio", ",.2f", 1.0),
    "remaining_variance": Column("remaining variance", ".3f", 1.0, share=True),
}
"""Figures that a table or a picture can show, by their name in `study.json`."""


def column(name: str) -> Column:
    """How a figure is shown.

    Raises:
        ValueError: no such figure; the message names all.
    """
    if name not in COLUMNS:
        raise ValueError(f"column {name!r} is unknown; there are {', '.join(COLUMNS)}")
    return COLUMNS[name]


def with_speedup(rows: Sequence[Figures]) -> list[dict[str, Any]]:
    """The rows, each with `speedup`: the first row's seconds over its own."""
    first = rows[0]["seconds"]
    return [{**row, "speedup": first / row["seconds"] if row["seconds"] else None} for row in rows]


def known(rows: Sequence[Figures], names: Sequence[str]) -> list[str]:
    """Those of the names that at least one row has a finite value for."""
    return [name for name in names if any(value_of(row, name) is not None for row in rows)]


def value_of(row: Figures, name: str) -> float | None:
    """A row's figure; None where it has none, or one that is not finite."""
    column(name)
    value = row.get(name)
    return value if value is not None and math.isfinite(value) else None


def markdown(rows: Sequence[Figures], names: Sequence[str]) -> str:
    """A Markdown table, padded so that it reads well as plain text too.

    Args:
        rows: figures by name, and `row`.
        names: columns; those that no row has are left out.
    """
    names = known(rows, names)
    lines = [["row", *(column(name).title for name in names)]]
    lines += [[str(row["row"]), *(_cell(row, name) for name in names)] for row in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(names) + 1)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        for line in [lines[0], ruler, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


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
    value = value_of(row, name)
    if value is None:
        return "–"
    spec = column(name).spec
    return format(round(value) if spec.endswith("d") else value, spec)
