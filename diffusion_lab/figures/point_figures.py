"""A run's figures of points in the plane: samples beside data, vector field, trajectories.

The real points come from the trainer's data module (`splits`); they are its test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from diffusion_lab.diffusion.gaussian import combine, marginal
from diffusion_lab.errors import ArgumentError
from diffusion_lab.figures.run_figures import PictureFile, SampleRequest
from diffusion_lab.generate.labels import Label, expand_labels
from diffusion_lab.random import seeded_generator
from diffusion_lab.ranges import Count, Positive, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusion_lab.generate.trained_model import Generates


@dataclass(kw_only=True)
class SampledPoints(PictureFile):
    """What figures of sampled points share; see `SampleRequest`."""

    num_points: Count
    label: Label = None
    seed: Seed = 0
    sampler: Sampler | None = None
    guidance: Guidance | None = None

    @property
    def request(self) -> SampleRequest:
        """The samples that are drawn."""
        return SampleRequest(
            num_samples=self.num_points,
            label=self.label,
            seed=self.seed,
            sampler=self.sampler,
            guidance=self.guidance,
        )

    def check(self, model: Generates) -> None:
        """Refuse other data than points in the plane, and what `SampleRequest` refuses."""
        _refuse_other_data(model)
        self.request.check(model)


@checked
@dataclass(kw_only=True)
class PointsFigure(SampledPoints):
    """As many samples as test points, side by side."""

    file: str = "pages/samples.png"
    num_points: Count = 2000
    caption = "test points and samples of the model"

    def draw(self, model: Generates, folder: Path) -> Image:
        """Draw samples beside the data."""
        from diffusion_lab.figures.scatter import beside_image

        samples = self.request.samples(model)
        labels = expand_labels(self.label, self.num_points, model.num_classes)
        data, classes = _test_points(model, self.num_points)
        return beside_image(samples, data, labels, None if labels is None else classes)


@checked
@dataclass(kw_only=True)
class TrajectoryFigure(SampledPoints):
    """The way of single points from noise to data; a deterministic sampler draws smooth lines."""

    file: str = "pages/trajectories.png"
    num_points: Count = 60
    caption = "trajectories from noise to samples"

    def draw(self, model: Generates, folder: Path) -> Image:
        """Sample and show every state."""
        from diffusion_lab.figures.scatter import paths_image

        steps = list(
            model.trajectory(
                self.num_points,
                self.label,
                sampler=self.sampler,
                guidance=self.guidance,
                seed=self.seed,
            )
        )
        paths = torch.stack([steps[0].x_t, *(step.x for step in steps)])
        data, _ = _test_points(model, 2000)
        return paths_image(paths, data)


@checked
@dataclass(kw_only=True)
class VectorFieldFigure(PictureFile):
    """Where the model moves a point, at several noise levels, over the test points at that level.

    An arrow is alpha x0-hat - x, which is sigma^2 times the model's score: the direction in which
    the density at that level rises fastest, and its length how far the clean point lies. Both
    are those of the model without a class.

    Attributes:
        times: Times in (0, 1], one a panel; each is moved to the nearest trained one.
        arrows: Arrows along each side of a panel.
        half: Half the side of the window around 0.
        num_points: Test points drawn behind.
        seed: Seed of the noise of these.
    """

    file: str = "pages/vector_field.png"
    times: Sequence[Annotated[float, Gt(0), Le(1)]] = (0.5, 0.25, 0.1, 0.02)
    arrows: Count = 17
    half: Positive = 3.0
    num_points: Count = 2000
    seed: Seed = 0
    caption = "the score of the model, times sigma^2, at falling noise levels"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.times:
            raise ArgumentError("times", [], "must be a list of at least one number")

    def check(self, model: Generates) -> None:
        """Refuse other data than points in the plane."""
        _refuse_other_data(model)

    def draw(self, model: Generates, folder: Path) -> Image:
        """Ask the model at a lattice of points."""
        from diffusion_lab.figures.scatter import Field, field_image

        data, _ = _test_points(model, self.num_points)
        eps = torch.randn(data.shape, generator=seeded_generator("vector field", self.seed))
        # The outermost arrows stand half a pitch inside the window.
        edge = self.half * (1 - 1 / self.arrows)
        side = torch.linspace(-edge, edge, self.arrows)
        at = torch.cartesian_prod(side, side)
        schedule = model.diffusion.schedule
        fields = []
        for time in self.times:
            level = schedule(schedule.snap(torch.tensor(time, dtype=torch.float64)))
            x0 = model.denoise(at, level.t).cpu()
            title = f"$t$ = {float(level.t):.3g},  $\\sigma/\\alpha$ = "
            title += f"{float(level.sigma / level.alpha):.2g}"
            arrows = combine((level.alpha, x0), (-1.0, at))
            fields.append(Field(title, marginal(data, eps, level), at, arrows))
        meaning = r"arrows: $\alpha\,\hat{x}_0 - x = \sigma^2\,\nabla \log p_t(x)$"
        return field_image(fields, self.half, meaning)


def _refuse_other_data(model: Generates) -> None:
    if model.shape != (2,):
        raise ValueError(f"shape={list(model.shape)}: this figure draws points in the plane, [2]")


def _test_points(model: Generates, count: int) -> tuple[Tensor, Tensor]:
    """The first test points of the data that the model is trained on, and their classes."""
    data = getattr(getattr(model, "trainer", None), "datamodule", None)
    points = getattr(data, "splits", None)
    if points is None:
        raise ValueError(
            "this figure shows real points, and the trainer has no data module with `splits`: "
            "train on a toy data set, e.g. data=moons"
        )
    return points.test[:count], points.test_labels[:count]
