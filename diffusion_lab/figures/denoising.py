"""The denoising of a few samples, moment by moment: frames of a film, and one strip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusion_lab.figures.drawing import Drawn
from diffusion_lab.figures.page import inside
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.sampler import Step

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class DenoisingPage:
    """From noise to images: step_1000.png (noise) ... step_0000.png (images), and strip.png.

    A frame has the noisy states x_t in its upper row and the estimates x0-hat of the images under
    them, classes in turn where there are classes; its number is that of the steps that are left,
    k = t T, thousandths of t where time is continuous. The strip shows the first images, one column
    a moment. Made of images only: of points, and by a classifier, there is no such page.

    Args:
        folder: Where the pictures go, relative to the run's folder.
        num_samples: Samples in each frame.
        moments: Frames, evenly spread over the steps, first and last included.
        strip: Samples of the strip.
        scale: Side of the square that a pixel of a frame becomes.
        seed: Seed of the noise; image k is image k of the grids with the same seed.

    Raises:
        ArgumentError: a number below 1.
        ValueError: a folder outside of the run's, or that of the grids.
    """

    @checked
    def __init__(
        self,
        folder: str = "samples/denoising",
        num_samples: Count = 10,
        moments: Count = 12,
        strip: Count = 4,
        scale: Count = 3,
        seed: Seed = 0,
    ) -> None:
        self.folder = inside("folder", folder)
        if Path(folder) == Path("samples"):
            raise ValueError(
                "folder='samples' holds the grids of training, step_*.png; take another"
            )
        self.num_samples = num_samples
        self.moments = moments
        self.strip = min(strip, num_samples)
        self.scale = scale
        self.seed = seed

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
        from diffusion_lab.figures.grids import image_grid, save_picture
        from diffusion_lab.spread import spread

        label = None if model.num_classes is None else "all"
        drawn = Drawn(self.num_samples, label, self.scale, self.seed, None, None)
        *wanted, _ = spread(drawn.steps_taken(model) + 1, self.moments)
        kept = drawn.kept(model, set(wanted))
        last = kept[max(kept)]
        frames = [(kept[k].t.t, kept[k].x_t, kept[k].x0) for k in wanted]
        frames.append((last.s.t, last.x, last.x0))
        for t, x, x0 in frames:
            number = round(float(t) * (model.diffusion.schedule.steps or 1000))
            rows = image_grid(torch.cat((x, x0)), columns=self.num_samples, scale=self.scale)
            save_picture(folder / self.folder / f"step_{number:04d}.png", rows)
        self._write_strip(model, folder, [kept[k] for k in sorted(kept)])
        return folder / self.folder

    def _write_strip(self, model: Generates, folder: Path, steps: list[Step]) -> None:
        from diffusion_lab.figures.drawn import moment
        from diffusion_lab.figures.grids import save_picture
        from diffusion_lab.figures.strips import strip_image

        captions = [moment(model.diffusion.schedule, float(step.t.t)) for step in steps]
        states: tuple[list[Tensor], list[Tensor]] = (
            [step.x_t for step in steps],
            [step.x0 for step in steps],
        )
        picture = strip_image(states, images=self.strip, captions=captions)
        save_picture(folder / self.shown, picture)
