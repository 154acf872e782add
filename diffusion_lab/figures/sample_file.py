"""The file that `sample` writes: by its ending a picture, an animation or the arrays."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from diffusion_lab.figures.grids import class_columns, image_grid
from diffusion_lab.figures.pictures import FORMATS, save_animation, save_picture
from diffusion_lab.figures.samples import strip_image
from diffusion_lab.figures.scatter import scatter_image, window
from diffusion_lab.files import write_atomically
from diffusion_lab.pixels import refuse_shape

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusion_lab.generate.generation import Moments

ENDINGS = (".png", ".npz", *FORMATS)


@dataclass(frozen=True)
class SampleFile:
    """What is to be written, as the keys of `conf/sample.yaml` say it.

    Attributes:
        moments: How many moments of each trajectory it shows; 0 where it shows the samples alone.
    """

    out: Path
    strip: int
    frames: int
    columns: int | None
    interpolate: int
    label: Any
    devices: int

    moments: int = field(init=False)

    def __post_init__(self) -> None:
        is_film = self.out.suffix.lower() in FORMATS
        object.__setattr__(self, "moments", self.strip or (self.frames if is_film else 0))

    def errors(self, shape: Sequence[int] | None) -> list[str]:
        """What is wrong with the file and the devices, given a sample's shape where it is known."""
        out, ending, found = self.out, self.out.suffix.lower(), []
        if ending not in ENDINGS:
            found.append(f"out={out} must end in one of {', '.join(ENDINGS)}")
        elif self.strip and ending != ".png":
            found.append(f"strip={self.strip} makes a picture: out={out} must end in .png")
        elif shape and ending != ".npz":
            try:
                refuse_shape(shape)
            except ValueError:
                found.append(f"out={out}: samples of shape {list(shape)} cannot be drawn; use .npz")
        if shape and len(shape) == 1 and self.columns:
            text = "points are one cloud and have none; leave it out"
            found.append(f"columns={self.columns}: {text}")
        if self.devices != 1 and self.moments:
            text = "share grids and arrays; leave it out of films, strips"
            found.append(f"devices={self.devices} {text}")
        return found

    def write(self, drawn: Tensor | Moments, labels: Tensor | None, classes: int | None) -> Path:
        """Write samples, or the moments of them.

        Args:
            drawn: (N, *shape) in [-1, 1].
            labels: (N,), of composed labels (N, terms); None where there are no classes.
            classes: How many the model has.
        """
        path = self.out.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(drawn, tuple):
            if path.suffix.lower() == ".npz":
                return _save_arrays(path, drawn, labels)
            return save_picture(path, self._layout(labels, classes, [drawn])(drawn))
        times, states, estimates = drawn
        if not self.strip:
            frames = [*states, estimates[-1]]
            return save_animation(path, map(self._layout(labels, classes, frames), frames))
        titles = [f"t = {t:.3g}" for t in times]
        return save_picture(path, strip_image(states, estimates, titles, labels))

    def _layout(
        self, labels: Tensor | None, classes: int | None, frames: list[Tensor]
    ) -> Callable[[Tensor], Image]:
        """How a set of samples becomes a picture; points of all frames share one window."""
        if frames[0].ndim == 2:
            return partial(scatter_image, labels=labels, limit=window(frames))
        count = len(frames[0])
        columns = max(1, round(math.sqrt(count)))
        if self.interpolate:  # one way a row
            columns = int(self.interpolate)
        elif self.label == "all" and classes:  # one class a column
            columns = min(class_columns(classes), count)
        return partial(image_grid, columns=int(self.columns or columns))


def _save_arrays(path: Path, samples: Tensor, labels: Tensor | None) -> Path:
    """Write `samples` float32 (N, *shape) and `labels` int64 (N,), -1 for no class; atomically."""
    numbers = np.full(len(samples), -1)
    if labels is not None:  # of a composed label its first class, -1 where it only says "not"
        numbers = (labels if labels.ndim == 1 else labels[:, 0]).clamp_min(-1).numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=samples.float().numpy(), labels=numbers.astype(np.int64))
    return write_atomically(path, buffer.getvalue())
