"""Drawing by several devices: each takes its share of the images, which are those of one device.

Image k depends on (seed, k) alone, so that whoever draws it draws the same one, up to the rounding
of its device.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.multiprocessing as processes
from torch import Tensor

from diffusion_lab.generate.generation import Request

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import TrainedModel

Source = Callable[[str], "TrainedModel"]
"""Device -> the model on it; to be pickled, since other processes call it."""
Counting = Callable[[torch.nn.Module], AbstractContextManager[list[int]]]
"""A context of a network that gives the growing list of its calls' images."""


class DrawnSamples(NamedTuple):
    """Samples and what they cost.

    Attributes:
        samples: float32 (N, *shape) on the CPU.
        asked: Images that the network was asked for, where they were counted.
        seconds: Of drawing; of several devices the longest.
    """

    samples: Tensor
    asked: int
    seconds: float


def refuse_devices(device: torch.device, devices: int) -> None:
    """Refuse more devices than there are.

    Raises:
        ValueError: naming how many there are.
    """
    if devices == 1 or device.type == "cpu":
        return
    if device.index:
        raise ValueError(f"device={device} is one of several: with devices={devices} take cuda")
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if devices > there:
        raise ValueError(f"devices={devices}: there are {there} of the kind {device.type}")


def draw(
    model: TrainedModel,
    source: Source,
    devices: int,
    request: Request,
    counting: Counting | None = None,
) -> DrawnSamples:
    """Draw all images of a request.

    Args:
        model: The model on the first device; it draws the first share.
        source: Where the other devices' processes get theirs from.
        devices: How many devices, or processes on the CPU, which divide its threads.
        request: What to draw.
        counting: Counts the images of the first share, whose progress can be told; None: nobody
            asks for numbers.

    Raises:
        ValueError: More devices than there are.
        ProcessRaisedException: What went wrong in another process.
    """
    refuse_devices(model.device, devices)
    share = -(-request.number // devices)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        others = None
        if devices > 1:
            each = max(1, threads // devices)
            others = processes.start_processes(
                _draw_share,
                (source, model.device.type, share, request, each, folder),
                nprocs=devices - 1,
                join=False,
                daemon=True,
                start_method="spawn",
            )
            torch.set_num_threads(each)
        try:
            parts = [_share_of(model, share, 0, request, counting)]
            while others is not None and not others.join():
                pass
        finally:
            torch.set_num_threads(threads)
            for process in others.processes if others is not None else ():
                process.terminate()  # of nothing left to do where all went well
        for rank in range(1, devices):
            parts.append(DrawnSamples(*torch.load(Path(folder) / f"{rank}.pt", weights_only=True)))
    samples, asked, seconds = zip(*parts, strict=True)
    return DrawnSamples(torch.cat(samples), sum(asked), max(seconds))


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
    with torch.no_grad():
        drawn = _share_of(model, share, rank, request, _counted)
    torch.save(tuple(drawn), Path(folder) / f"{rank}.pt")


@contextmanager
def _counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """The growing list of a network's calls' images."""
    calls: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    try:
        yield calls
    finally:
        handle.remove()


def _share_of(
    model: TrainedModel,
    share: int,
    rank: int,
    request: Request,
    counting: Counting | None,
) -> DrawnSamples:
    """The images of one device; the last one may have fewer, or none."""
    first = rank * share
    count = min(share, request.number - first)
    if count <= 0:
        return DrawnSamples(torch.empty(0, *model.shape), 0, 0.0)
    began = time.perf_counter()
    with counting(model.diffusion.denoiser) if counting else nullcontext([]) as calls:
        own = request._replace(number=count, first=first)
        samples = model.drawing.samples(model.diffusion, own).cpu()  # waits for an accelerator
    return DrawnSamples(samples, sum(calls), time.perf_counter() - began)
