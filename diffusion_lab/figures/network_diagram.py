"""A diagram of a network from plain data: a U where it has two sides, else a column."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, TALL, ROW, INDENT = 3.1, 0.78, 1.0, 0.22
"""Width and height of a box, distance of rows, shift to the middle of each row; inches."""
BETWEEN_SIDES, BESIDE = 3.0, 0.5
"""Width between the two sides of a U, and between a column and what stands beside it; inches."""
INK, SOFT = "#1d2126", "#5d6670"
ENDS, BLOCKS, RESIZE, MIDDLE, TOLD = "#eceef0", "#d3e5f8", "#fdebcd", "#d9efdb", "#ecdff4"


@dataclass(frozen=True)
class Part:
    """A box of the diagram.

    Attributes:
        name: What it is called.
        output: Shape of its output for one sample, e.g. (64, 14, 14).
        parameters: How many it has.
        inside: What it is made of, in words.
        colour: Of the box.
    """

    name: str
    output: tuple[int, ...]
    parameters: int
    inside: str = ""
    colour: str = BLOCKS


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        title: Written above.
        down: Parts in the order of the computation; all of them where there is no way up.
        middle: The turning point of a U; None for a column.
        up: Parts after it.
        skips: (index into down, index into up) of what is joined.
        beside: What the parts are told: the embedding of noise level and class.
    """

    title: str
    down: Sequence[Part]
    middle: Part | None = None
    up: Sequence[Part] = ()
    skips: Sequence[tuple[int, int]] = ()
    beside: Part | None = None


def diagram(plan: Plan, dpi: int = 110) -> Image.Image:
    """Draw a network.

    Args:
        plan: Its parts.
        dpi: Pixels an inch; a U of two levels is about 9 inches wide and 7 high.

    Returns:
        An RGB picture.

    Raises:
        ValueError: no parts.
    """
    if not plan.down:
        raise ValueError("down is empty: a diagram needs at least one part")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(plan.down), len(plan.up)) + (plan.middle is not None)
    width = WIDE
    if plan.up or plan.beside:
        width += WIDE + (BETWEEN_SIDES if plan.up else BESIDE)
    figure = Figure(figsize=(width + 0.4, rows * ROW + 0.5), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.2, width + 0.2), ylim=(-rows * ROW, 0.5), aspect="equal")
    axes.axis("off")
    axes.text(width / 2, 0.22, plan.title, ha="center", va="center", size=11, color=INK)
    _draw(axes, plan, width)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return Image.open(buffer).convert("RGB")


def _draw(axes: Axes, plan: Plan, width: float) -> None:
    """Boxes, then the arrows between them."""
    rows = max(len(plan.down), len(plan.up))
    indent = INDENT if plan.up else 0.0
    left = [
        (indent * k, -ROW * (rows - len(plan.down) + k) - (ROW + TALL) / 2)
        for k in range(len(plan.down))
    ]
    right = [
        (width - WIDE - indent * k, -ROW * (rows - len(plan.up) + k) - (ROW + TALL) / 2)
        for k in range(len(plan.up))
    ][::-1]
    for part, corner in [*zip(plan.down, left, strict=True), *zip(plan.up, right, strict=True)]:
        _box(axes, part, corner)
    if plan.beside is not None:
        x = (width - WIDE) / 2 if plan.up else width - WIDE
        _box(axes, plan.beside, (x, -(ROW + TALL) / 2), narrow=0.2 if plan.up else 0.0)
    for (x, y), (_, below) in pairwise(left):
        _arrow(axes, (x + WIDE / 2, y), (x + WIDE / 2, below + TALL))
    for (x, y), (_, above) in pairwise(right):
        _arrow(axes, (x + WIDE / 2, y + TALL), (x + WIDE / 2, above))
    for down, up in plan.skips:
        (x, y), (end, level) = left[down], right[up]
        _arrow(axes, (x + WIDE, y + TALL / 2), (end, level + TALL / 2), dashed=True)
        axes.text((x + WIDE + end) / 2, y + TALL / 2 + 0.05, "skip", ha="center", va="bottom",
                  size=8, color=SOFT)  # fmt: skip
    if plan.middle is not None:
        corner = ((width - WIDE) / 2, -ROW * rows - (ROW + TALL) / 2)
        _box(axes, plan.middle, corner)
        _around(axes, left[-1], corner, right[0] if right else None)


def _around(
    axes: Axes,
    last: tuple[float, float],
    middle: tuple[float, float],
    first: tuple[float, float] | None,
) -> None:
    """The two arrows at the bottom of the U."""
    height = middle[1] + TALL / 2
    _arrow(axes, (last[0] + WIDE / 2, last[1]), (middle[0], height), turn="angleA=-90,angleB=180")
    if first is not None:
        start, end = (middle[0] + WIDE, height), (first[0] + WIDE / 2, first[1])
        _arrow(axes, start, end, turn="angleA=0,angleB=90")


def _box(axes: Axes, part: Part, corner: tuple[float, float], narrow: float = 0.0) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = corner[0] + narrow, corner[1]
    wide = WIDE - 2 * narrow
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch((x, y), wide, TALL, style, facecolor=part.colour, edgecolor=SOFT, lw=0.8)
    )
    size = " × ".join(str(n) for n in part.output)
    count = f"{part.parameters:,} parameters" if part.parameters else "no parameters"
    centre = x + wide / 2
    axes.text(centre, y + 0.78 * TALL, part.name, ha="center", va="center", size=9.5, color=INK,
              weight="bold")  # fmt: skip
    axes.text(centre, y + 0.49 * TALL, part.inside, ha="center", va="center", size=8, color=SOFT)
    axes.text(centre, y + 0.2 * TALL, f"{size}   ·   {count}", ha="center", va="center", size=8.5,
              color=INK)  # fmt: skip


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    dashed: bool = False,
    turn: str = "",
) -> None:
    style = {
        "arrowstyle": "-|>",
        "color": SOFT,
        "lw": 1.2,
        "ls": (0, (4, 3)) if dashed else "-",
        "shrinkA": 0,
        "shrinkB": 0,
        "connectionstyle": f"angle,{turn},rad=6" if turn else "arc3",
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
