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
    """The outcome of a request.

    Attributes:
        scores: Plain data: those of the evaluator, `network_calls` per image (a guided call, with
            and without the class, counts as two), `seconds` of drawing, `scoring_seconds`, `step`.
        samples: float32 (N, *shape) on the CPU.
        scored: The samples with their scores, for pictures and paired comparisons.
    """

    scores: dict[str, Any]
    samples: Tensor
    scored: Scored


def measure(
    request: EvaluationRequest, evaluator: Evaluator, progress: Callable[[int], None]
) -> Measurement:
    """Draw and score samples.

    Only the drawing is timed, after two steps of warm-up.

    Args:
        request: What to draw; without errors.
        evaluator: Scores the samples.
        progress: Called with the number of images after each network call.

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
    samples, calls, seconds = draw(
        module,
        source_of(cfg.ckpt, cfg.weights, cfg.trust, **request.parts),
        cfg.devices,
        Request(cfg.num_samples, Condition(labels), cfg.seed, cfg.batch_size),
        partial(counting, progress=progress),
    )
    start = time.perf_counter()
    scored = evaluator.scored(samples, labels)
    scores = scored.scores | _in_further_features(request, evaluator, samples)
    scores |= {
        "network_calls": calls / len(samples),
        "seconds": round(seconds, 2),
        "scoring_seconds": round(time.perf_counter() - start, 2),
        "step": request.stored["step"],
    }
    return Measurement(scores, samples, scored)


def _in_further_features(
    request: EvaluationRequest, evaluator: Evaluator, samples: Tensor
) -> dict[str, float]:
    """The scores of `evaluate features=NAME`."""
    from diffusion_lab.config.building import instantiate

    score = instantiate(request.cfg.get("features"), trust=request.cfg.trust)
    splits = evaluator.data.splits
    return {} if score is None else dict(score(samples, splits.train, splits.test))


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
    """Two steps of a whole batch: kernels are chosen and memory is allocated before the timing."""
    chosen = None if labels is None else labels[:count]
    steps = module.drawing.trajectory(module.diffusion, Request(count, Condition(chosen)))
    # Where a batch is too large, drawing itself halves it.
    with suppress(torch.OutOfMemoryError):
        for _, step in zip(range(2), steps, strict=False):
            step.x.cpu()
    steps.close()  # type: ignore[attr-defined]
