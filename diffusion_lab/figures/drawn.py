"""Pages drawn from the trained model: grids, strips, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lab.figures.drawing import Drawn
from diffusion_lab.figures.page import inside
from diffusion_lab.generate.labels import Label
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler

if TYPE_CHECKING:
    from diffusion_lab.diffusion.schedules import Schedule
    from diffusion_lab.generate.trained_model import Generates


class GridPage(Drawn):
    """Samples in a grid; one image with a large scale is a picture of its own.

    Args:
        file: The picture, relative to the run's folder.
        num_samples: How many.
        label: A class, a list that is repeated, "all" (classes in turn), or None for no class.
        columns: Images a row; None: one column a class where label is "all", else about square.
        scale: Side of the square that a pixel becomes.
        seed: Seed of the noise.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a file outside of the run's folder.
    """

    @checked
    def __init__(
        self,
        file: str,
        num_samples: Count = 100,
        label: Label = None,
        columns: Count | None = None,
        scale: Count = 2,
        seed: Seed = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(num_samples, label, scale, seed, sampler, guidance)
        self.file = inside("file", file, (".png",))
        self.columns = columns

    def write(self, model: Generates, folder: Path) -> Path:
        """Draw the samples and lay them out."""
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.pictures import picture

        samples = model.sample(
            self.num_samples,
            self.label,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
        )
        columns = self.columns or self.columns_of(model)
        return save_picture(folder / self.file, picture(samples, columns, self.scale))


class StripPage(Drawn):
    """The road from noise to sample: x_t over x0-hat at some moments, two rows an image.

    Args:
        file: The picture, relative to the run's folder.
        num_samples: Images; or points, which are shown together.
        label: As in `GridPage`.
        moments: Steps shown, evenly chosen, first and last included.
        scale: Side of the square that a pixel becomes.
        seed: Seed of the noise.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a file outside of the run's folder.
    """

    @checked
    def __init__(
        self,
        file: str,
        num_samples: Count = 4,
        label: Label = None,
        moments: Count = 11,
        scale: Count = 2,
        seed: Seed = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(num_samples, label, scale, seed, sampler, guidance)
        self.file = inside("file", file, (".png",))
        self.moments = moments

    def write(self, model: Generates, folder: Path) -> Path:
        """Sample once and show some of the steps."""
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.strips import strip_image
        from diffusion_lab.spread import spread

        wanted = set(spread(self.steps_taken(model), self.moments))
        steps = [*self.kept(model, wanted).values()]
        captions = [moment(model.diffusion.schedule, float(step.t.t)) for step in steps]
        strip = strip_image(steps, scale=self.scale, captions=captions)
        return save_picture(folder / self.file, strip)


class StepsPage(Drawn):
    """One picture a moment of the denoising: step_1000.png (noise) ... step_0000.png (image).

    The number is that of the steps that are left, k = t T; thousandths of t where time is
    continuous.

    Args:
        folder: Where the pictures go, relative to the run's folder.
        num_samples: Samples in each picture.
        label: As in `GridPage`.
        moments: Pictures, evenly spread over the steps, first and last included.
        scale: Side of the square that a pixel becomes.
        seed: Seed of the noise.
        sampler: In place of the module's own.
        guidance: In place of the module's own.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a folder outside of the run's, or that of the grids.
    """

    @checked
    def __init__(
        self,
        folder: str = "denoising_steps",
        num_samples: Count = 1,
        label: Label = None,
        moments: Count = 11,
        scale: Count = 8,
        seed: Seed = 0,
        sampler: Sampler | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__(num_samples, label, scale, seed, sampler, guidance)
        self.folder = inside("folder", folder)
        if Path(folder) == Path("samples"):
            raise ValueError(
                "folder='samples' holds the grids of training, step_*.png; take another"
            )
        self.moments = moments

    def write(self, model: Generates, folder: Path) -> Path:
        """Sample once and draw the state at some of the steps."""
        from diffusion_lab.figures.clouds import window
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.pictures import picture
        from diffusion_lab.spread import spread

        taken = self.steps_taken(model)
        *wanted, _ = spread(taken + 1, self.moments)
        kept = self.kept(model, set(wanted))
        last = kept[max(kept)]
        states = [(kept[k].t.t, kept[k].x_t) for k in wanted] + [(last.s.t, last.x)]
        limit = window([x for _, x in states]) if len(model.shape) == 1 else None
        for t, x in states:
            number = round(float(t) * (model.diffusion.schedule.steps or 1000))
            drawn = picture(x, self.columns_of(model), self.scale, limit)
            save_picture(folder / self.folder / f"step_{number:04d}.png", drawn)
        return folder / self.folder


def moment(schedule: Schedule, t: float) -> str:
    """A time as a caption: the steps that are left, or t where time is continuous."""
    return f"t = {t:.2f}" if schedule.steps is None else f"step {round(t * schedule.steps)}"
