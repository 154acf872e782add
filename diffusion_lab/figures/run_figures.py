"""Figures that a run leaves behind: made once, from the final weights, when training has ended.

A figure is any object with `write(model, folder) -> Path`; those here are dataclasses whose fields
are the keys of their node in `callbacks.artefacts.pages`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from diffusion_lab.generate.generation import Moments, Request
from diffusion_lab.generate.labels import Label, expand_given, expand_labels
from diffusion_lab.pixels import refuse_shape
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.sampling.pipeline import Guidance
from diffusion_lab.sampling.sampler import Sampler

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from diffusion_lab.generate.trained_model import Generates


class RunFigure(Protocol):
    """Something that a run leaves behind.

    Further members are optional: `check(model)` raises ValueError before training starts if the
    figure cannot be made of this model; `suits(model)` is False where there is nothing to show, and
    the figure is left out; `caption` (str) says what it shows; `shown` (str, relative to the run's
    folder) is the one picture of a figure of several that the loggers are given.
    """

    def write(self, model: Generates, folder: Path) -> Path:
        """Make the figure from a trained model and give its file, or the folder of its files.

        Args:
            model: In eval mode, averaged weights in place; called under no_grad.
            folder: The run's folder.
        """
        ...


def check_inside(argument: str, file: str, ending: str = "") -> None:
    """Refuse a path that is not inside the run's folder, or has another ending.

    Raises:
        ValueError: An absolute path, one that climbs out, the folder itself, another ending.
    """
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(
            f"{argument}={file!r} must name a place inside the run's folder, e.g. pages/grid.png"
        )
    if ending and path.suffix.lower() != ending:
        raise ValueError(f"{argument}={file!r} must end in {ending}")


@dataclass(kw_only=True)
class PictureFile(ABC):
    """A figure that is one picture; `file` is relative to the run's folder."""

    file: str

    def __post_init__(self) -> None:
        check_inside("file", self.file, ".png")

    @abstractmethod
    def draw(self, model: Generates, folder: Path) -> Image:
        """The picture of a trained model, or of what is in the run's folder."""

    def write(self, model: Generates, folder: Path) -> Path:
        """See `RunFigure`."""
        from diffusion_lab.figures.pictures import save_picture

        picture = self.draw(model, folder)
        return save_picture(folder / self.file, picture)


@dataclass(kw_only=True)
class SampleRequest:
    """Which samples a figure shows, and how they are drawn.

    Attributes:
        num_samples: How many.
        label: A class, a list that is repeated, "all" (classes in turn), or None for no class.
        scale: Side of the square that a pixel becomes; points have none.
        seed: Seed of the noise; image k is image k of every figure with the same seed.
        sampler: In place of the model's own.
        guidance: In place of the model's own.
    """

    num_samples: Count
    label: Label = None
    scale: Count = 2
    seed: Seed = 0
    sampler: Sampler | None = None
    guidance: Guidance | None = None

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
            ValueError: Which, and why.
        """
        refuse_shape(model.shape)
        expand_labels(self.label, self.num_samples, model.num_classes)
        sampler = self.sampler or model.drawing.sampler
        if sampler is None:
            raise ValueError("sampler=None: the model has no sampler of its own; give one")
        sampler.check(model.diffusion.schedule)

    def columns_of(self, model: Generates) -> int:
        """One column a class where classes take turns, else about square."""
        if self.label == "all" and model.num_classes:
            from diffusion_lab.figures.grids import class_columns

            return class_columns(model.num_classes)
        return max(1, round(self.num_samples**0.5))

    def samples(self, model: Generates) -> Tensor:
        """The samples, (num_samples, *shape)."""
        return model.sample(
            self.num_samples,
            self.label,
            sampler=self.sampler,
            guidance=self.guidance,
            seed=self.seed,
            batch_size=self.num_samples if len(model.shape) == 1 else 256,
        )

    def moments_of(self, model: Generates, number: int, *, finished: bool = False) -> Moments:
        """Steps of sampling, evenly chosen; see `Drawing.moments`."""
        given = expand_given(self.label, None, self.num_samples, model.num_classes)
        request = Request(self.num_samples, given, self.seed, batch_size=self.num_samples)
        drawing = model.drawing.replaced(self.sampler, self.guidance)
        return drawing.moments(model.diffusion, request, number, finished=finished)


@checked
@dataclass(kw_only=True)
class ProgressFigure(PictureFile):
    """The first `images` of the grids in samples/, one row an epoch (or step), at most `rows`.

    They are cut out of the files that the grid callback wrote, so nothing is drawn anew.
    """

    images: Count = 10
    rows: Count = 12
    caption = "the same noise after more and more training"

    def draw(self, model: Generates, folder: Path) -> Image:
        """Cut and stack."""
        from diffusion_lab.figures.samples import progress_image
        from diffusion_lab.runs.records import grids

        return progress_image(grids(folder), images=self.images, rows=self.rows)


@dataclass(kw_only=True)
class Alias:
    """A relative symbolic link `file` to `of`, e.g. checkpoints/model_latest.pth -> last.ckpt.

    Both are files or folders, relative to the run's folder.
    """

    file: str
    of: str

    def __post_init__(self) -> None:
        check_inside("file", self.file)
        check_inside("of", self.of)
        file, of = Path(self.file), Path(self.of)
        if file.is_relative_to(of) or of.is_relative_to(file):
            raise ValueError(
                f"file={self.file!r} and of={self.of!r} must be two places beside each other"
            )

    @property
    def caption(self) -> str:
        """What it stands for."""
        return f"another name of {self.of}"

    def write(self, model: Generates, folder: Path) -> Path:
        """Make the link, in place of an earlier one.

        Raises:
            FileNotFoundError: `of` is not there.
            FileExistsError: `file` is there and is no link.
        """
        link, target = folder / self.file, folder / self.of
        if not target.exists():
            raise FileNotFoundError(f"of={self.of!r} is not in the run's folder")
        if link.exists() and not link.is_symlink():
            raise FileExistsError(f"file={self.file!r} is there already and is no link")
        link.parent.mkdir(parents=True, exist_ok=True)
        beside = link.with_name(f".{link.name}.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(os.path.relpath(target, link.parent))
        beside.replace(link)
        return link
