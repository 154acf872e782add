"""Generating samples from a model in batches, by image number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.errors import CheckpointError
from diffusion_lab.generate.initial_state import InitialState
from diffusion_lab.generate.labels import Label, expand_given
from diffusion_lab.sampling import pipeline
from diffusion_lab.sampling.constraints import X0Constraint
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.sampling.pipeline import Guidance, evaluating
from diffusion_lab.sampling.sample_noise import SampleNoise
from diffusion_lab.sampling.sampler import Sampler, Step
from diffusion_lab.spread import spread


def refuse_classifier(model: GaussianDiffusion) -> None:
    """Refuse to draw from a classifier of noisy images.

    Raises:
        CheckpointError: With what to type instead.
    """
    if not model.denoises:
        raise CheckpointError(
            "this run trained a classifier, which has nothing to sample; it guides other runs: "
            "sample ckpt=RUN guidance=classifier guidance.classifier.path=THIS"
        )


class Moments(NamedTuple):
    """Some steps of every trajectory, in the order of sampling: what a strip or a film shows.

    Attributes:
        times: t of each.
        states: x_t of each, (N, *shape), float32 on the CPU.
        estimates: x0-hat of each, the same.
    """

    times: list[float]
    states: list[Tensor]
    estimates: list[Tensor]


class Request(NamedTuple):
    """Which images are generated.

    Attributes:
        number: How many.
        given: The conditions of images 0 .. first + number - 1, see `expand_given`.
        seed: Of the noise; image k depends on (seed, k) alone.
        batch_size: Images at a time.
        start: Images or states to start from in place of noise.
        first: Number of the first image.
    """

    number: int
    given: Condition
    seed: int = 0
    batch_size: int = 256
    start: InitialState | None = None
    first: int = 0


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn, unless a call says otherwise.

    Attributes:
        shape: Shape of one sample.
        num_classes: Classes of the model, or None.
        sampler: The solver; None leaves it to each call.
        guidance: How the class steers; None is the conditional model as it is.
        constraint: Applied to every x0-hat; None for none.
        clip: Clip finished samples to [-1, 1].
    """

    shape: tuple[int, ...]
    num_classes: int | None
    sampler: Sampler | None = None
    guidance: Guidance | None = None
    constraint: X0Constraint | None = None
    clip: bool = False

    def replaced(self, sampler: Sampler | None, guidance: Guidance | None) -> Drawing:
        """The same with another sampler or guidance, where given."""
        return replace(self, sampler=sampler or self.sampler, guidance=guidance or self.guidance)

    def samples(self, model: GaussianDiffusion, request: Request) -> Tensor:
        """The requested samples, in batches, which are halved where memory runs out."""
        first, end, batch_size = request.first, request.first + request.number, request.batch_size
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        parts: list[Tensor] = []
        while first < end:
            size = min(batch_size, end - first)
            try:
                parts.append(self._batch(model, request._replace(number=size, first=first)))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                batch_size = size // 2
                continue
            first += size
        return torch.cat(parts)

    def trajectory(self, model: GaussianDiffusion, request: Request) -> Iterator[Step]:
        """Every step of sampling the requested images in one batch."""
        arguments = self._arguments(model, request)
        with evaluating(model):
            yield from pipeline.trajectory(model, **arguments)

    def _batch(self, model: GaussianDiffusion, request: Request) -> Tensor:
        arguments = self._arguments(model, request)
        with evaluating(model):
            x = pipeline.final_state(pipeline.trajectory(model, **arguments)).float()
        return x.clamp(-1, 1) if self.clip else x

    def _own_sampler(self) -> Sampler:
        if self.sampler is None:
            raise ValueError("sampler=None: this model has no sampler of its own; give one")
        return self.sampler

    def _arguments(self, model: GaussianDiffusion, request: Request) -> dict[str, Any]:
        """What `pipeline.trajectory` is given for the images of a request."""
        refuse_classifier(model)
        sampler, (count, given, seed, _, start, first) = self._own_sampler(), request
        composed = given.label is not None and given.label.ndim == 2
        if composed and not isinstance(self.guidance, ClassifierFree):
            raise ValueError(
                "the label composes classes, which classifier-free guidance alone can do: take "
                "guidance=cfg"
            )
        noise = SampleNoise(seed, first, count)
        x, time, constraint = start.of(model, first, count, noise) if start else (None, None, None)
        return {
            "sampler": sampler,
            "shape": self.shape,
            "num_samples": count,
            "noise": noise,
            "guidance": self.guidance,
            "given": given.rows(slice(first, first + count)),
            "x": x,
            "start": time,
            "x0_constraint": self.constraint,
            "constraint": constraint,
        }

    def moments(
        self, model: GaussianDiffusion, request: Request, number: int, *, finished: bool = False
    ) -> Moments:
        """What the requested samples went through, at `number` steps, evenly spaced.

        The last moment is the last evaluation of the network; with `finished` the samples.
        """
        start = request.start
        times = self._own_sampler().times(model.schedule, None if start is None else start.time)
        # Only what is shown is kept: all of 1,000 steps of 100 images would be 600 MB. A pair of
        # times that rises is forward noise and yields no step.
        picked = spread(int((times[1:] < times[:-1]).sum()) + finished, number)
        at: list[float] = []
        states: list[list[Tensor]] = [[] for _ in picked]
        estimates: list[list[Tensor]] = [[] for _ in picked]

        def keep(t: Tensor, x: Tensor, x0: Tensor) -> None:
            states[len(at)].append(x.float().cpu())
            estimates[len(at)].append(x0.float().cpu())
            at.append(float(t.mean()))

        for first in range(0, request.number, request.batch_size):
            size = min(request.batch_size, request.number - first)
            at.clear()
            for k, step in enumerate(
                self.trajectory(model, request._replace(number=size, first=first))
            ):
                if k in picked:
                    keep(step.t.t, step.x_t, step.x0)
            if finished:
                keep(step.s.t, step.x, step.x0)
        return Moments(at, [torch.cat(p) for p in states], [torch.cat(p) for p in estimates])

    def denoised(
        self,
        model: GaussianDiffusion,
        x_t: Tensor,
        t: float | Tensor,
        label: Label,
        given: Condition | None = None,
    ) -> Tensor:
        """x0-hat of x_t at t; see `Generates.denoise`."""
        time = torch.as_tensor(t, dtype=torch.float64)
        if not bool(((time > 0) & (time <= 1)).all()):
            raise ValueError(f"t={t} must lie in (0, 1]: 0 is data, 1 is noise")
        if x_t.shape[1:] != self.shape:
            raise ValueError(f"x_t={tuple(x_t.shape)} must be a batch of {self.shape}")
        refuse_classifier(model)
        told = expand_given(label, given, len(x_t), self.num_classes)
        if told.label is not None and told.label.ndim == 2:
            raise ValueError(f"label={label!r} composes classes, which needs guidance")
        with evaluating(model), torch.no_grad():
            query = Query(x_t.float(), model.schedule(time), given=told.to(x_t.device))
            return model(query).x0
