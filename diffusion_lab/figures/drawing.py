"""What pages of samples share."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from diffusion_lab.generate.labels import Label, expand_labels
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler, Step

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class Drawn:
    """Which samples a page shows, and how they are drawn.

    Args:
        num_samples: How many.
        label: A class, a list that is repeated, "all" (classes in turn), or None for no class.
        scale: Side of the square that a pixel becomes; points have none.
        seed: Seed of the noise; image k is image k of every page with the same seed.
        sampler: In place of the module's own.
        guidance: In place of the module's own.
    """

    @checked
    def __init__(
        self,
        num_samples: Count,
        label: Label,
        scale: Count,
        seed: Seed,
        sampler: Sampler | None,
        guidance: Guidance | None,
    ) -> None:
        self.num_samples = num_samples
        self.label = label
        self.scale = scale
        self.seed = seed
        self.sampler = sampler
        self.guidance = guidance

    @property
    def caption(self) -> str:
        """What it shows."""
        count = "1 sample" if self.num_samples == 1 else f"{self.num_samples} samples"
        if self.label is None:
            return f"{count}, seed {self.seed}"
        of = "all classes in turn" if self.label == "all" else f"class {self.label}"
        return f"{count} of {of}, seed {self.seed}"

    def check(self, model: Generates) -> None:
        """Refuse a class, a sampler or data that this model does not go with.

        Raises:
            ValueError: which, and why.
        """
        from diffusion_lab.pixels import refuse_shape

        refuse_shape(model.shape)
        expand_labels(self.label, self.num_samples, model.num_classes)
        self._sampler(model).check(model.diffusion.schedule)

    def _sampler(self, model: Generates) -> Sampler:
        sampler = self.sampler or model.drawing.sampler
        if sampler is None:
            raise ValueError("sampler=None: the model has no sampler of its own; give one")
        return sampler

    def columns_of(self, model: Generates) -> int:
        """One column a class where classes take turns, else about square."""
        if self.label == "all" and model.num_classes:
            from diffusion_lab.figures.grids import class_columns

            return class_columns(model.num_classes)
        return max(1, round(self.num_samples**0.5))

    def steps_taken(self, model: Generates) -> int:
        """Steps of one trajectory; a rising pair of the grid is noise and no step."""
        times = self._sampler(model).times(model.diffusion.schedule)
        return sum(bool(s < t) for t, s in pairwise(times))

    def kept(self, model: Generates, wanted: Collection[int]) -> dict[int, Step]:
        """Steps of these numbers, and the last one; tensors float32 on the CPU."""
        kept: dict[int, Step] = {}
        for number, step in enumerate(self._trajectory(model)):
            latest = number, step
            if number in wanted:
                kept[number] = _on_cpu(step)
        kept.setdefault(latest[0], _on_cpu(latest[1]))
        return kept

    def _trajectory(self, model: Generates) -> Iterator[Step]:
        return model.trajectory(
            self.num_samples,
            self.label,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
        )


def _on_cpu(step: Step) -> Step:
    return step._replace(
        x=step.x.float().cpu(), x_t=step.x_t.float().cpu(), x0=step.x0.float().cpu()
    )
