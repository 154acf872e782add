"""Pages of a model of points in the plane: samples beside data, its vector field, trajectories.

The real points come from the trainer's data module (`splits`); they are its test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor

from diffusion_lab.diffusion.gaussian import combine, marginal
from diffusion_lab.errors import ArgumentError
from diffusion_lab.figures.drawing import Drawn
from diffusion_lab.figures.page import inside
from diffusion_lab.generate.labels import Label, expand_labels
from diffusion_lab.random import seeded_generator
from diffusion_lab.ranges import Count, Positive, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class DrawnPoints(Drawn):
    """What pages of points that are sampled share; see `Drawn`.

    Args:
        file: The picture, relative to the run's folder.
        num_points: How many are sampled.
        label: As in `Drawn`.
        seed: As in `Drawn`.
        sampler: As in `Drawn`.
        guidance: As in `Drawn`.
    """

    @checked
    def __init__(
        self,
        file: str,
        num_points: Count,
        label: Label,
        seed: Seed,
        sampler: Sampler | None,
        guidance: Guidance | None,
    ) -> None:
        super().__init__(num_points, label, 1, seed, sampler, guidance)
        self.file = inside("file", file, (".png",))

    def check(self, model: Generates) -> None:
        """Refuse other data than points in the plane, and what `Drawn` refuses."""
        _refuse_other_data(model)
        super().check(model)


class SamplesPage(DrawnPoints):
    """As many samples as test points, side by side.

    Args:
        file: The picture, relative to the run's folder.
        num_points: Points of either kind; at most as many as the test set has are drawn of it.
        label: A class, a list that is repeated, "all" (classes in turn), or None for no class.
        seed: Seed of the noise.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: fewer than one point.
        ValueError: a file outside the run's folder.
    """

    caption = "test points and samples of the model"

    @checked
    def __init__(
        self,
        file: str = "pages/samples.png",
        num_points: Count = 2000,
        label: Label = None,
        seed: Seed = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(file, num_points, label, seed, sampler, guidance)

    def write(self, model: Generates, folder: Path) -> Path:
        """Draw samples and write the page."""
        from diffusion_lab.figures.clouds import beside_image
        from diffusion_lab.figures.grids import save_picture

        samples = model.sample(
            self.num_samples,
            self.label,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
            batch_size=self.num_samples,
        )
        labels = expand_labels(self.label, self.num_samples, model.num_classes)
        data, classes = _test_points(model, self.num_samples)
        picture = beside_image(samples, data, labels, None if labels is None else classes)
        return save_picture(folder / self.file, picture)


class VectorFieldPage:
    """Where the model moves a point, at several noise levels, over the test points at that level.

    An arrow is alpha x0-hat - x, which is sigma^2 times the model's score: the direction in which
    the density at that level rises fastest, and its length how far the clean point lies. Both
    are those of the model without a class.

    Args:
        file: The picture, relative to the run's folder.
        times: Times in (0, 1], one a panel; each is moved to the nearest trained one.
        arrows: Arrows along each side of a panel.
        half: Half the side of the window around 0.
        num_points: Test points drawn behind.
        seed: Seed of the noise of these.

    Raises:
        ArgumentError: a number out of range.
        ValueError: a file outside the run's folder.
    """

    caption = "the score of the model, times sigma^2, at falling noise levels"

    @checked
    def __init__(
        self,
        file: str = "pages/vector_field.png",
        times: Sequence[Annotated[float, Gt(0), Le(1)]] = (0.5, 0.25, 0.1, 0.02),
        arrows: Count = 17,
        half: Positive = 3.0,
        num_points: Count = 2000,
        seed: Seed = 0,
    ) -> None:
        self.file = inside("file", file, (".png",))
        self.times = tuple(times)
        if not self.times:
            raise ArgumentError("times", [], "must be a list of at least one number")
        self.arrows, self.half = arrows, half
        self.num_points, self.seed = num_points, seed

    def check(self, model: Generates) -> None:
        """Refuse other data than points in the plane."""
        _refuse_other_data(model)

    def write(self, model: Generates, folder: Path) -> Path:
        """Ask the model at a grid of points and write the page."""
        from diffusion_lab.figures.flows import Field, field_image
        from diffusion_lab.figures.grids import save_picture

        data, _ = _test_points(model, self.num_points)
        eps = torch.randn(data.shape, generator=seeded_generator("vector field", self.seed))
        # The outermost arrows stand half a pitch inside the window.
        edge = self.half * (1 - 1 / self.arrows)
        side = torch.linspace(-edge, edge, self.arrows)
        at = torch.cartesian_prod(side, side)
        schedule = model.diffusion.schedule
        fields = []
        for wanted in self.times:
            level = schedule(schedule.snap(torch.tensor(wanted, dtype=torch.float64)))
            x0 = model.denoise(at, level.t).cpu()
            title = f"$t$ = {float(level.t):.3g},  $\\sigma/\\alpha$ = "
            title += f"{float(level.sigma / level.alpha):.2g}"
            arrows = combine((level.alpha, x0), (-1.0, at))
            fields.append(Field(title, marginal(data, eps, level), at, arrows))
        meaning = r"arrows: $\alpha\,\hat{x}_0 - x = \sigma^2\,\nabla \log p_t(x)$"
        return save_picture(folder / self.file, field_image(fields, self.half, meaning))


class TrajectoryPage(DrawnPoints):
    """The way of single points from noise to data, over the test points.

    Args:
        file: The picture, relative to the run's folder.
        num_points: Trajectories.
        label: As in `SamplesPage`.
        seed: Seed of the noise.
        sampler: In place of the module's own; a deterministic one draws smooth lines.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: fewer than one point.
        ValueError: a file outside the run's folder.
    """

    caption = "trajectories from noise to samples"

    @checked
    def __init__(
        self,
        file: str = "pages/trajectories.png",
        num_points: Count = 60,
        label: Label = None,
        seed: Seed = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(file, num_points, label, seed, sampler, guidance)

    def write(self, model: Generates, folder: Path) -> Path:
        """Sample, keep every state, and write the page."""
        from diffusion_lab.figures.flows import paths_image
        from diffusion_lab.figures.grids import save_picture

        steps = list(self._trajectory(model))
        paths = torch.stack([steps[0].x_t, *(step.x for step in steps)])
        data, _ = _test_points(model, 2000)
        return save_picture(folder / self.file, paths_image(paths, data))


def _refuse_other_data(model: Generates) -> None:
    if model.shape != (2,):
        raise ValueError(f"shape={list(model.shape)}: this page draws points in the plane, [2]")


def _test_points(model: Generates, count: int) -> tuple[Tensor, Tensor]:
    """The first test points of the data that the model is trained on, and their classes."""
    points = getattr(getattr(model.trainer, "datamodule", None), "splits", None)
    if points is None:
        raise ValueError(
            "this page shows real points, and the trainer has no data module with `splits`: train "
            "on a toy data set, e.g. data=moons"
        )
    return points.test[:count], points.test_labels[:count]
