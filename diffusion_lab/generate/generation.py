"""Drawing samples from a model in batches, by image number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition, Query
from diffusion_lab.diffusion.model import GaussianDiffusion
from diffusion_lab.errors import CheckpointError
from diffusion_lab.generate.given import expand_given
from diffusion_lab.generate.initial_state import InitialState
from diffusion_lab.generate.labels import Label
from diffusion_lab.sampling import pipeline
from diffusion_lab.sampling.constraints import X0Constraint
from diffusion_lab.sampling.guidance.classifier_free import ClassifierFree
from diffusion_lab.sampling.pipeline import Guidance, evaluating
from diffusion_lab.sampling.sample_noise import SampleNoise
from diffusion_lab.sampling.sampler import Sampler, Step


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

    def samples(
        self,
        model: GaussianDiffusion,
        count: int,
        given: Condition,
        seed: int,
        batch_size: int,
        start: InitialState | None = None,
        first: int = 0,
    ) -> Tensor:
        """Samples first .. first + count - 1 in batches; see `Generates.sample`.

        `given` has the rows of images 0 .. first + count - 1, as `expand_given` gives them.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        end = first + count
        parts: list[Tensor] = []
        while first < end:
            size = min(batch_size, end - first)
            try:
                parts.append(self._batch(model, given, seed, first, size, start))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                batch_size = size // 2
                continue
            first += size
        return torch.cat(parts)

    def trajectory(
        self,
        model: GaussianDiffusion,
        count: int,
        given: Condition,
        seed: int,
        first: int = 0,
        start: InitialState | None = None,
    ) -> Iterator[Step]:
        """Every step of images first .. first + count - 1; `given` counts from image 0."""
        arguments = self._arguments(model, count, given, seed, first, start)
        with evaluating(model):
            yield from pipeline.trajectory(model, **arguments)

    def _batch(
        self,
        model: GaussianDiffusion,
        given: Condition,
        seed: int,
        first: int,
        size: int,
        start: InitialState | None,
    ) -> Tensor:
        arguments = self._arguments(model, size, given, seed, first, start)
        with evaluating(model):
            x = pipeline.final_state(pipeline.trajectory(model, **arguments)).float()
        return x.clamp(-1, 1) if self.clip else x

    def _arguments(
        self,
        model: GaussianDiffusion,
        count: int,
        given: Condition,
        seed: int,
        first: int,
        start: InitialState | None,
    ) -> dict[str, Any]:
        """What `pipeline.trajectory` is given for images first .. first + count - 1."""
        refuse_classifier(model)
        if self.sampler is None:
            raise ValueError("sampler=None: this model has no sampler of its own; give one")
        composed = given.label is not None and given.label.ndim == 2
        if composed and not isinstance(self.guidance, ClassifierFree):
            raise ValueError(
                "the label composes classes, which classifier-free guidance alone can do: take "
                "guidance=cfg"
            )
        chosen = given.rows(slice(first, first + count))
        noise = SampleNoise(seed, first, count)
        x, time, constraint = start.of(model, first, count, noise) if start else (None, None, None)
        return {
            "sampler": self.sampler,
            "shape": self.shape,
            "num_samples": count,
            "noise": noise,
            "guidance": self.guidance,
            "given": chosen,
            "x": x,
            "start": time,
            "x0_constraint": self.constraint,
            "constraint": constraint,
        }

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
