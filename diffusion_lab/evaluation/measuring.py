"""Drawing the samples of a request: counted, timed and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.generate.generation import Request

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffusion_lab.evaluation.evaluators import Evaluator
    from diffusion_lab.evaluation.request import EvaluationRequest
    from diffusion_lab.generate.trained_model import TrainedModel
    from diffusion_lab.metrics.scores import Scored


class Measurement(NamedTuple):
    """What a request gave.

    Attributes:
        figures: Plain data: those of the evaluator, `network_calls` an image (a guided call of one
            image with and without its class counts as two), `seconds` for drawing all,
            `scoring_seconds`, `step`.
        samples: float32 (N, *shape) on the CPU.
        scored: What the evaluator found, for pictures and paired comparisons.
    """

    figures: dict[str, Any]
    samples: Tensor
    scored: Scored


def measure(
    request: EvaluationRequest, evaluator: Evaluator, progress: Callable[[int], None]
) -> Measurement:
    """Draw and score.

    The clock runs for the drawing alone, after two steps of it were taken to warm up.

    Args:
        request: What to draw; without faults.
        evaluator: What to measure.
        progress: Told the number of network calls after each.

    Raises:
        ValueError: The model has diverged.
    """
    from diffusion_lab.generate.multi_device import draw
    from diffusion_lab.loading import device_of, restored, source_of

    cfg, labels = request.cfg, request.labels
    module = restored(
        request.checkpoint, cfg.weights, device_of(cfg.device), cfg.trust, **request.parts
    )
    _warm_up(module, labels, min(cfg.batch_size, cfg.num_samples))
    wanted = Request(cfg.num_samples, Condition(labels), cfg.seed, cfg.batch_size)
    samples, asked, seconds = draw(
        module,
        source_of(cfg.ckpt, cfg.weights, cfg.trust, **request.parts),
        cfg.devices,
        wanted,
        partial(counting, progress=progress),
    )
    start = time.perf_counter()
    scored = evaluator.scored(samples, labels)
    figures = scored.scores | _further(request, evaluator, samples)
    figures |= {
        "network_calls": asked / len(samples),
        "seconds": round(seconds, 2),
        "scoring_seconds": round(time.perf_counter() - start, 2),
        "step": request.stored["step"],
    }
    return Measurement(figures, samples, scored)


def _further(request: EvaluationRequest, evaluator: Evaluator, samples: Tensor) -> dict[str, float]:
    """Figures in further features, `evaluate features=NAME`."""
    from diffusion_lab.config.building import instantiate

    measure = instantiate(request.cfg.get("features"), trust=request.cfg.trust)
    if measure is None:
        return {}
    splits = evaluator.data.splits
    return dict(measure(samples, splits.train, splits.test))


@contextmanager
def counting(network: nn.Module, progress: Callable[[int], None]) -> Iterator[list[int]]:
    """A list that grows by the number of images of every call of a network."""
    calls: list[int] = []

    def note(_: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        calls.append(len(arguments[0]))
        progress(calls[-1])

    handle = network.register_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def _warm_up(module: TrainedModel, labels: Tensor | None, count: int) -> None:
    """Two steps on a whole batch: kernels are chosen and memory is taken before the clock runs."""
    chosen = None if labels is None else labels[:count]
    steps = module.drawing.trajectory(module.diffusion, Request(count, Condition(chosen)))
    # Where a batch is too large, drawing itself halves it.
    with suppress(torch.OutOfMemoryError):
        for _, step in zip(range(2), steps, strict=False):
            step.x.cpu()
    steps.close()  # type: ignore[attr-defined]
