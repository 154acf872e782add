"""A diagram of the network as it is: its parts are run once and asked for their sizes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from diffusion_lab.figures.network_diagram import BLOCKS, ENDS, MIDDLE, RESIZE, TOLD, Part, Plan
from diffusion_lab.figures.page import inside

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates

U_NET = {"encoder", "downs", "middle", "ups", "decoder"}
"""Children by which a network is known as a U; the other names drawn are stem, embed, conv_out."""


class ArchitecturePage:
    """Boxes for the parts of the network, with the size of their output and their parameters.

    A U for a network with the children of `UNet`, a column for any other.

    Args:
        file: The picture, relative to the run's folder.

    Raises:
        ValueError: a file outside of the run's folder.
    """

    def __init__(self, file: str) -> None:
        self.file = inside("file", file, (".png",))

    @property
    def caption(self) -> str:
        """What it shows."""
        return "the network, with the size of what each part gives"

    def write(self, model: Generates, folder: Path) -> Path:
        """Run the network once on nothing and draw its parts."""
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.network_diagram import diagram

        plan = plan_of(model.diffusion.denoiser, model.shape, model.num_classes)
        return save_picture(folder / self.file, diagram(plan))


class Seen(NamedTuple):
    """A part that was run, and the shape of its output for one sample."""

    module: nn.Module
    output: tuple[int, ...]


def plan_of(net: nn.Module, shape: tuple[int, ...], num_classes: int | None) -> Plan:
    """The parts of a network, by running it once.

    Args:
        net: A denoiser; see `GaussianDiffusion` for its contract.
        shape: Of one sample.
        num_classes: Of the model, or None.
    """
    seen = _run(net, shape, num_classes)
    size = " × ".join(map(str, shape))
    title = f"{type(net).__name__}   ·   {_count(net):,} parameters   ·   {size} in and out"
    beside = None
    if "embed" in seen:
        told = "noise level" if num_classes is None else "noise level and class"
        beside = _part(told, seen.pop("embed"), TOLD)
    if {name for name, _ in net.named_children()} >= U_NET:
        return _u(seen, title, beside)
    return Plan(title, _column(seen, shape), beside=beside)


def _column(seen: dict[str, Seen], shape: tuple[int, ...]) -> list[Part]:
    """Parts in the order of their calls; lists that take turns are one part a turn."""
    rounds: dict[str, list[str]] = {}
    lists = {name.partition(".")[0] for name in seen if "." in name}
    for name in seen:
        number = name.partition(".")[2]
        rounds.setdefault(f"block.{number}" if number and len(lists) > 1 else name, []).append(name)
    parts: list[Part] = []
    before = shape
    for name, members in rounds.items():
        modules = [seen[member].module for member in members]
        output, count = seen[members[-1]].output, sum(map(_count, modules))
        if count or output != before:
            colour = BLOCKS if "." in name else ENDS
            parts.append(Part(_words(name), output, count, _insides(modules), colour))
        before = output
    return parts


def _u(seen: dict[str, Seen], title: str, beside: Part | None) -> Plan:
    """The way down, the middle and the way up of a U-Net."""
    levels = sum(name.startswith("encoder.") for name in seen)
    down = [("stem", ENDS)] if "stem" in seen else []
    up = []
    for k in range(levels):
        down += [(f"encoder.{k}", BLOCKS), (f"downs.{k}", RESIZE)]
        up += [(f"ups.{k}", RESIZE), (f"decoder.{k}", BLOCKS)]
    skips = [(len(down) - 2 * (levels - k), 2 * (levels - k) - 1) for k in range(levels)]
    parts = [_part(_words(name), seen[name], colour) for name, colour in up]
    if "conv_out" in seen:
        both = [seen[name].module for name in ("norm_out", "conv_out") if name in seen]
        last = seen["conv_out"]
        parts.append(Part("output", last.output, sum(map(_count, both)), _insides(both), ENDS))
    return Plan(
        title,
        [_part(_words(name), seen[name], colour) for name, colour in down],
        _part("middle", seen["middle"], MIDDLE),
        parts,
        skips,
        beside,
    )


def _run(net: nn.Module, shape: tuple[int, ...], num_classes: int | None) -> dict[str, Seen]:
    """Name -> part, in the order of their first call; entries of a list are parts of their own."""
    seen: dict[str, Seen] = {}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen.setdefault(name, Seen(module, tuple(output.shape[1:])))

        return hook

    handles = [part.register_forward_hook(remember(name)) for name, part in _parts(net)]
    parameter = next(net.parameters())
    x = torch.zeros(1, *shape, device=parameter.device)
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


def _parts(net: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        if isinstance(child, nn.ModuleList):
            found += [(f"{name}.{k}", c) for k, c in enumerate(child)]
        else:
            found.append((name, child))
    return [(name, part) for name, part in found if not isinstance(part, nn.Identity)]


def _part(name: str, seen: Seen, colour: str) -> Part:
    return Part(name, seen.output, _count(seen.module), _insides([seen.module]), colour)


def _insides(modules: list[nn.Module]) -> str:
    """What modules are made of: the classes in their lists, else their own."""
    names: Counter[str] = Counter()
    for module in modules:
        lists = [c for c in module.children() if isinstance(c, nn.ModuleList)]
        parts = [part for each in lists for part in each] or [module]
        names.update(type(p).__name__ for p in parts if not isinstance(p, nn.Identity))
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in names.items())


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _words(name: str) -> str:
    """encoder.0 -> encoder 1."""
    stem, _, number = name.partition(".")
    stem = stem.removesuffix("s") if number else stem.replace("_", " ")
    return f"{stem} {int(number) + 1}" if number else stem
