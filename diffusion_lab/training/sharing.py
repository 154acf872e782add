"""Drawing by several devices: each takes its share of the images, which are those of one device.

Image k depends on (seed, k) alone, so that whoever draws it draws the same one, up to the rounding
of its device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.multiprocessing as processes
from torch import Tensor

if TYPE_CHECKING:
    from diffusion_lab.training.module import DiffusionModule
    from diffusion_lab.training.starting import Start

Source = Callable[[str], "DiffusionModule"]
"""Device -> the model on it; to be pickled, since other processes call it."""


class Request(NamedTuple):
    """Which images are drawn, see `DiffusionModule.sample`."""

    count: int
    labels: Tensor | None
    seed: int
    batch_size: int
    start: Start | None = None


def refuse_devices(device: torch.device, devices: int) -> None:
    """Refuse more devices than there are.

    Raises:
        ValueError: naming how many there are.
    """
    if devices == 1 or device.type == "cpu":
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if devices > there:
        raise ValueError(f"devices={devices}: there are {there} of the kind {device.type}")


def draw(
    model: DiffusionModule,
    source: Source,
    devices: int,
    request: Request,
    counting: Callable[[torch.nn.Module], Any] | None = None,
) -> tuple[Tensor, int]:
    """Samples (count, *shape), float32 on the CPU, and how many images the network was asked for.

    Args:
        model: The model on the first device; it draws the first share.
        source: Where the other devices' processes get theirs from.
        devices: How many devices, or processes on the CPU, which divide its threads.
        request: What to draw.
        counting: A context of a network that gives the growing list of its calls' images; for the
            first share, whose progress can be told.

    Raises:
        ValueError: More devices than there are.
        ProcessRaisedException: What went wrong in another process.
    """
    refuse_devices(model.device, devices)
    share = -(-request.count // devices)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        others = None
        if devices > 1:
            each = max(1, threads // devices)
            arguments = (source, model.device.type, share, request, each, folder)
            others = processes.start_processes(
                _draw_share, arguments, nprocs=devices - 1, join=False, start_method="spawn"
            )
            torch.set_num_threads(each)
        try:
            with counting(model.diffusion.denoiser) if counting else nullcontext([]) as calls:
                parts = [_share_of(model, share, 0, request)]
            while others is not None and not others.join():
                pass
        finally:
            torch.set_num_threads(threads)
        asked = sum(calls)
        for rank in range(1, devices):
            kept = torch.load(Path(folder) / f"{rank}.pt", weights_only=True)
            parts.append(kept["samples"])
            asked += kept["asked"]
    return torch.cat(parts), asked


def _draw_share(
    index: int,
    source: Source,
    kind: str,
    share: int,
    request: Request,
    threads: int,
    folder: str,
) -> None:
    """What another process does: draw its share, and leave it in a file."""
    rank = index + 1
    torch.set_num_threads(threads)
    model = source(f"{kind}:{rank}" if kind == "cuda" else kind)
    asked = 0

    def note(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal asked
        asked += len(arguments[0])

    model.diffusion.denoiser.register_forward_pre_hook(note)
    with torch.no_grad():
        samples = _share_of(model, share, rank, request)
    torch.save({"samples": samples, "asked": asked}, Path(folder) / f"{rank}.pt")


def _share_of(model: DiffusionModule, share: int, rank: int, request: Request) -> Tensor:
    """The images of one device; the last one may have fewer, or none."""
    first = rank * share
    count = min(share, request.count - first)
    if count <= 0:
        return torch.empty(0, *model.shape)
    return model.sample(
        count,
        None if request.labels is None else request.labels[: first + count],
        seed=request.seed,
        batch_size=request.batch_size,
        start=request.start,
        first=first,
    ).cpu()
