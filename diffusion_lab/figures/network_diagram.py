"""A diagram of a network: its parts are run once and asked for their sizes.

A U for a network with the children of `UNet`, a column for any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from diffusion_lab.figures.pictures import rendered
from diffusion_lab.figures.run_figures import PictureFile
from diffusion_lab.ranges import checked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffusion_lab.generate.trained_model import Generates

U_NET = {"encoder", "downs", "middle", "ups", "decoder"}
"""Children by which a network is known as a U; the other names drawn are stem, embed, conv_out."""
WIDE, TALL, ROW, INDENT = 3.1, 0.78, 1.0, 0.22
"""Width and height of a box, distance of rows, shift to the middle of each row; inches."""
BETWEEN_SIDES, BESIDE = 3.0, 0.5
"""Width between the two sides of a U, and between a column and what stands beside it; inches."""
DPI = 110
INK, SOFT = "#1d2126", "#5d6670"
ENDS, BLOCKS, RESIZE, MIDDLE, CONDITION = "#eceef0", "#d3e5f8", "#fdebcd", "#d9efdb", "#ecdff4"


class Part(NamedTuple):
    """A box: a name, the shape of its output for one sample, and what it is made of, in words."""

    name: str
    output: tuple[int, ...]
    parameters: int
    inside: str = ""
    colour: str = BLOCKS


class Plan(NamedTuple):
    """A network.

    Attributes:
        title: Written above.
        down: Parts in the order of the computation; all of them where there is no way up.
        middle: The turning point of a U; None for a column.
        up: Parts after it.
        skips: (index into down, index into up) of what is joined.
        beside: The embedding of noise level and class, which all parts are given.
    """

    title: str
    down: Sequence[Part]
    middle: Part | None = None
    up: Sequence[Part] = ()
    skips: Sequence[tuple[int, int]] = ()
    beside: Part | None = None


@checked
@dataclass(kw_only=True)
class ArchitectureFigure(PictureFile):
    """Boxes for the parts of the network, with the size of their output and their parameters."""

    caption = "the network, with the size of what each part gives"

    def draw(self, model: Generates, folder: Path) -> Image.Image:
        """Run the network once on nothing and draw its parts."""
        return diagram(plan_of(model.diffusion.denoiser, model.shape, model.num_classes))


def plan_of(net: nn.Module, shape: tuple[int, ...], num_classes: int | None) -> Plan:
    """The parts of a denoiser of samples of a shape, by running it once."""
    seen = _run(net, shape, num_classes)
    size = " × ".join(map(str, shape))
    title = f"{type(net).__name__}   ·   {_count([net]):,} parameters   ·   {size} in and out"
    beside = None
    if "embed" in seen:
        name = "noise level" if num_classes is None else "noise level and class"
        beside = _part(name, [seen.pop("embed")], CONDITION)
    if {name for name, _ in net.named_children()} >= U_NET:
        return _u(seen, title, beside)
    return Plan(title, _column(seen, shape), beside=beside)


class _Seen(NamedTuple):
    """A part that was run, and the shape of its output for one sample."""

    module: nn.Module
    output: tuple[int, ...]


def _run(net: nn.Module, shape: tuple[int, ...], num_classes: int | None) -> dict[str, _Seen]:
    """Name -> part, in the order of their first call; entries of a list are parts of their own."""
    seen: dict[str, _Seen] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, _Seen(module, tuple(output.shape[1:])))

        return hook

    parts: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        entries = enumerate(child) if isinstance(child, nn.ModuleList) else ()
        parts += [(f"{name}.{k}", entry) for k, entry in entries] or [(name, child)]
    handles = [
        part.register_forward_hook(remember(name))
        for name, part in parts
        if not isinstance(part, nn.Identity)
    ]
    x = torch.zeros(1, *shape, device=next(net.parameters()).device)
    label = None if num_classes is None else torch.zeros(1, dtype=torch.long, device=x.device)
    try:
        with torch.no_grad():
            c_noise = torch.ones(1, device=x.device)
            inputs = getattr(net, "condition_inputs", None)
            net(x, *((c_noise, label) if inputs is None else inputs(x, c_noise, label)))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _column(seen: dict[str, _Seen], shape: tuple[int, ...]) -> list[Part]:
    """Parts in the order of their calls; lists that take turns are one part a turn."""
    rounds: dict[str, list[_Seen]] = {}
    lists = {name.partition(".")[0] for name in seen if "." in name}
    for name, part in seen.items():
        number = name.partition(".")[2]
        rounds.setdefault(f"block.{number}" if number and len(lists) > 1 else name, []).append(part)
    parts: list[Part] = []
    before = shape
    for name, members in rounds.items():
        part = _part(name, members, BLOCKS if "." in name else ENDS)
        if part.parameters or part.output != before:
            parts.append(part)
        before = part.output
    return parts


def _u(seen: dict[str, _Seen], title: str, beside: Part | None) -> Plan:
    """The way down, the middle and the way up of a U-Net."""
    levels = sum(name.startswith("encoder.") for name in seen)
    down = [_part("stem", [seen["stem"]], ENDS)] if "stem" in seen else []
    up: list[Part] = []
    for k in range(levels):
        for side, names in ((down, ("encoder", "downs")), (up, ("ups", "decoder"))):
            for name in names:
                colour = RESIZE if name in ("downs", "ups") else BLOCKS
                side.append(_part(f"{name}.{k}", [seen[f"{name}.{k}"]], colour))
    if "conv_out" in seen:
        both = [seen[name] for name in ("norm_out", "conv_out") if name in seen]
        up.append(_part("output", both, ENDS))
    skips = [(len(down) - 2 * (levels - k), 2 * (levels - k) - 1) for k in range(levels)]
    return Plan(title, down, _part("middle", [seen["middle"]], MIDDLE), up, skips, beside)


def _part(name: str, seen: Sequence[_Seen], colour: str) -> Part:
    """Parts that were run one after another as one box; its name encoder.0 -> encoder 1."""
    stem, _, number = name.partition(".")
    words = f"{stem.removesuffix('s')} {int(number) + 1}" if number else stem.replace("_", " ")
    names: Counter[str] = Counter()
    for module in (part.module for part in seen):
        lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
        inner = [part for each in lists for part in each] or [module]
        names.update(type(part).__name__ for part in inner if not isinstance(part, nn.Identity))
    inside = ", ".join(name if count == 1 else f"{count} {name}" for name, count in names.items())
    return Part(words, seen[-1].output, _count([part.module for part in seen]), inside, colour)


def _count(modules: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def diagram(plan: Plan) -> Image.Image:
    """Draw a network; a U of two levels is about 9 inches wide and 7 high.

    Raises:
        ValueError: No parts.
    """
    from matplotlib.figure import Figure

    if not plan.down:
        raise ValueError("down is empty: a diagram needs at least one part")
    rows = max(len(plan.down), len(plan.up))
    width = WIDE
    if plan.up or plan.beside:
        width += WIDE + (BETWEEN_SIDES if plan.up else BESIDE)
    height = (rows + (plan.middle is not None)) * ROW
    figure = Figure(figsize=(width + 0.4, height + 0.5), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.2, width + 0.2), ylim=(-height, 0.5), aspect="equal")
    axes.axis("off")
    axes.text(width / 2, 0.22, plan.title, ha="center", va="center", size=11, color=INK)
    _draw(axes, plan, width, rows)
    return rendered(figure)


def _draw(axes: Axes, plan: Plan, width: float, rows: int) -> None:
    """Boxes at their lower left corners, then the arrows between them."""

    def height(k: int, of: int) -> float:
        return -ROW * (rows - of + k) - (ROW + TALL) / 2

    shift = INDENT if plan.up else 0.0
    n, m = len(plan.down), len(plan.up)
    left = [(shift * k, height(k, n)) for k in range(n)]
    right = [(width - WIDE - shift * k, height(k, m)) for k in reversed(range(m))]
    for part, corner in [*zip(plan.down, left, strict=True), *zip(plan.up, right, strict=True)]:
        _box(axes, part, corner)
    if plan.beside is not None:
        x = (width - WIDE) / 2 if plan.up else width - WIDE
        _box(axes, plan.beside, (x, height(0, rows)), narrow=0.2 if plan.up else 0.0)
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
        x, y = (width - WIDE) / 2, height(rows, rows)
        _box(axes, plan.middle, (x, y))
        (last, bottom), middle = left[-1], y + TALL / 2
        _arrow(axes, (last + WIDE / 2, bottom), (x, middle), turn="angleA=-90,angleB=180")
        if right:
            end = (right[0][0] + WIDE / 2, right[0][1])
            _arrow(axes, (x + WIDE, middle), end, turn="angleA=0,angleB=90")


def _box(axes: Axes, part: Part, corner: tuple[float, float], narrow: float = 0.0) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, wide = corner[0] + narrow, corner[1], WIDE - 2 * narrow
    style = {"boxstyle": "round,pad=0,rounding_size=0.07", "edgecolor": SOFT, "lw": 0.8}
    axes.add_patch(FancyBboxPatch((x, y), wide, TALL, facecolor=part.colour, **style))
    size = " × ".join(map(str, part.output))
    count = f"{part.parameters:,} parameters" if part.parameters else "no parameters"
    for at, text, look in (
        (0.78, part.name, {"size": 9.5, "color": INK, "weight": "bold"}),
        (0.49, part.inside, {"size": 8, "color": SOFT}),
        (0.2, f"{size}   ·   {count}", {"size": 8.5, "color": INK}),
    ):
        axes.text(x + wide / 2, y + at * TALL, text, ha="center", va="center", **look)


def _arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    dashed: bool = False,
    turn: str = "",
) -> None:
    style = {
        **{"arrowstyle": "-|>", "color": SOFT, "lw": 1.2, "shrinkA": 0, "shrinkB": 0},
        "ls": (0, (4, 3)) if dashed else "-",
        "connectionstyle": f"angle,{turn},rad=6" if turn else "arc3",
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
