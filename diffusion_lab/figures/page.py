"""What a page is, and where it may write."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from diffusion_lab.generate.trained_model import Generates


class Page(Protocol):
    """Something that a run leaves behind.

    Further members are optional: `check(model)` raises ValueError before training starts if the
    page cannot be made of this model; `suits(model)` is False where there is nothing to show, and
    the page is left out; `caption` (str) says what it shows; `shown` (str, relative to the run's
    folder) is the one picture of a page of several that the loggers are given.
    """

    def write(self, model: Generates, folder: Path) -> Path:
        """Make the page from a trained model and give its file, or the folder of its files.

        Args:
            model: In eval mode, averaged weights in place; called under no_grad.
            folder: The run's folder.
        """
        ...


def inside(argument: str, file: str, endings: tuple[str, ...] = ()) -> str:
    """`file`, if it names a place inside the run's folder.

    Args:
        argument: Name of the argument, for the error.
        file: Path relative to the run's folder.
        endings: What it may end in; any where empty.

    Raises:
        ValueError: an absolute path, one that climbs out, the folder itself, another ending.
    """
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(
            f"{argument}={file!r} must name a place inside the run's folder, e.g. pages/grid.png"
        )
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{argument}={file!r} must end in {' or '.join(endings)}")
    return file
