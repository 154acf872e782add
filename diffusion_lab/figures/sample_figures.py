"""A run's figures of samples: grids, strips, and the denoising step by step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffusion_lab.figures.run_figures import PictureFile, SampleRequest, check_inside
from diffusion_lab.generate.generation import Moments
from diffusion_lab.ranges import Count, Seed, checked

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusion_lab.generate.trained_model import Generates


@checked
@dataclass(kw_only=True)
class GridFigure(SampleRequest, PictureFile):
    """Samples in a grid; one image with a large scale is a picture of its own.

    `columns` are images a row; None: one column a class where label is "all", else about square.
    """

    num_samples: Count = 100
    columns: Count | None = None

    def draw(self, model: Generates, folder: Path) -> Image:
        """Draw the samples and lay them out."""
        from diffusion_lab.figures.samples import samples_image

        columns = self.columns or self.columns_of(model)
        return samples_image(self.samples(model), columns, self.scale)


@checked
@dataclass(kw_only=True)
class StripFigure(SampleRequest, PictureFile):
    """From noise to samples: x_t over x0-hat at `moments` steps, two rows an image.

    Points share one pair of rows.
    """

    num_samples: Count = 4
    moments: Count = 11

    def draw(self, model: Generates, folder: Path) -> Image:
        """Sample once and show some of the steps."""
        return _strip(model, self.moments_of(model, self.moments), self.num_samples, self.scale)


@dataclass(kw_only=True)
class StepsFolder:
    """A figure of one picture a moment: step_1000.png (noise) ... step_0000.png (samples).

    The number is that of the steps that are left, k = t T; thousandths of t where time is
    continuous.
    """

    folder: str

    def __post_init__(self) -> None:
        check_inside("folder", self.folder)
        if Path(self.folder) == Path("samples"):
            raise ValueError(
                "folder='samples' holds the grids of training, step_*.png; take another"
            )

    def save(self, model: Generates, folder: Path, times: list[float], drawn: list[Image]) -> Path:
        """Write the picture of each time, and give the folder."""
        from diffusion_lab.figures.pictures import save_picture

        for t, picture in zip(times, drawn, strict=True):
            number = round(t * (model.diffusion.schedule.steps or 1000))
            save_picture(folder / self.folder / f"step_{number:04d}.png", picture)
        return folder / self.folder


@checked
@dataclass(kw_only=True)
class StepsFigure(SampleRequest, StepsFolder):
    """The noisy states at `moments` times, evenly spread over the steps, a picture each."""

    folder: str = "denoising_steps"
    num_samples: Count = 1
    moments: Count = 11
    scale: Count = 8

    def write(self, model: Generates, folder: Path) -> Path:
        """Sample once and draw the state at some of the steps."""
        from diffusion_lab.figures.samples import samples_image
        from diffusion_lab.figures.scatter import window

        times, states, _ = self.moments_of(model, self.moments, finished=True)
        limit = window(states) if len(model.shape) == 1 else None
        columns = self.columns_of(model)
        drawn = [samples_image(x, columns, self.scale, limit) for x in states]
        return self.save(model, folder, times, drawn)


@checked
@dataclass(kw_only=True)
class DenoisingFigure(StepsFolder):
    """From noise to images: the frames of an animation, and strip.png for the loggers.

    A frame has the noisy states x_t in its upper row and the estimates x0-hat of the images under
    them, classes in turn where there are classes. The strip shows the first `strip` images, one
    column a moment. Made of images only: of points, and by a classifier, there is no such figure.
    """

    folder: str = "samples/denoising"
    num_samples: Count = 10
    moments: Count = 12
    strip: Count = 4
    scale: Count = 3
    seed: Seed = 0

    @property
    def caption(self) -> str:
        """What it shows."""
        return f"noisy states over estimates of the image, {self.num_samples} samples"

    @property
    def shown(self) -> str:
        """The one picture that loggers are given, relative to the run's folder."""
        return f"{self.folder}/strip.png"

    def suits(self, model: Generates) -> bool:
        """Whether there is anything to show: a model that draws images."""
        return model.draws_images

    def write(self, model: Generates, folder: Path) -> Path:
        """Sample once; write the frames and the strip."""
        from diffusion_lab.figures.grids import image_grid
        from diffusion_lab.figures.pictures import save_picture

        label = None if model.num_classes is None else "all"
        request = SampleRequest(num_samples=self.num_samples, label=label, seed=self.seed)
        shown = request.moments_of(model, self.moments, finished=True)
        save_picture(folder / self.shown, _strip(model, shown, self.strip, scale=2))
        pairs = [torch.cat(pair) for pair in zip(shown.states, shown.estimates, strict=True)]
        drawn = [image_grid(pair, self.num_samples, self.scale) for pair in pairs]
        return self.save(model, folder, shown.times, drawn)


def _strip(model: Generates, shown: Moments, images: int, scale: int) -> Image:
    """A strip of the first images, or of all points; titles are the steps left, or t."""
    from diffusion_lab.figures.samples import strip_image

    steps = model.diffusion.schedule.steps
    titles = [f"t = {t:.2f}" if steps is None else f"step {round(t * steps)}" for t in shown.times]
    count = None if len(model.shape) == 1 else images
    states, estimates = ([x[:count] for x in kind] for kind in (shown.states, shown.estimates))
    return strip_image(states, estimates, titles, scale=scale)
