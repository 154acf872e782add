"""What is measured: on images by a classifier, on points by the distance of clouds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffusion_lab.config import instantiate
from diffusion_lab.studies.progress import Progress

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffusion_lab.metrics.features import RealImages, Yardstick
    from diffusion_lab.studies.cells import Cell

Line = tuple[str, str, str]
"""Name, value and meaning of a figure."""


class Ruler(Protocol):
    """Scores samples, and shows them side by side."""

    shown: int
    """How many samples of a row a page shows."""
    unit: str
    """What a sample is called, in the plural."""

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Plain figures of samples (N, *shape); see `metrics.scores` and `metrics.points`."""
        ...

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        ...

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """One captioned block of samples a row."""
        ...


def ruler_of(cell: Cell) -> Ruler:
    """The ruler of the data that a cell's model was trained on: it has points, or images."""
    from diffusion_lab.data.digits import Digits

    cfg = cell.cfg
    data = instantiate(cfg.data, trust=cfg.trust)
    if hasattr(type(data), "points"):
        return PointRuler(data)
    source = cell.stored.get("data") or {}
    if source.get("fallback") and source["name"] == "digits":
        print("This model was trained on the embedded digits and is compared with those.")
        data = Digits(shape=data.shape, num_classes=data.num_classes)
    return ImageRuler(data, Path(str(cfg.paths.data_dir)).expanduser())


class ImageRuler:
    """The classifier's reading, Fréchet distance and diversity, see `metrics.scores`.

    Args:
        data: An image data module.
        beside: Folder of the data, where the classifier is kept if it can be.
    """

    shown, unit = 20, "images"

    def __init__(self, data: Any, beside: Path) -> None:
        self.data, self.beside = data, beside

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Figures of images (N, C, H, W) in [-1, 1]."""
        from diffusion_lab.metrics.scores import score

        return score(self._yardstick, samples, labels, self._real)

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        count, agreement = figures["fd_count"], figures["agreement"]
        within = "" if agreement is None else ", within classes"
        read = f"the classifier reads {figures['classifier_test_accuracy']:.2%} of the test set"
        return [
            ("class agreement", _text(agreement, ".2%"), f"read as asked; {read}"),
            ("Fréchet distance", f"{figures['fd']:.3f}", "to the training set, in its features"),
            ("... of real images", f"{figures['fd_test']:.3f}", f"the first {count} test images"),
            ("FD ratio", f"{figures['fd_ratio']:.2f}", f"of {count} images each; 1 is ideal"),
            (
                "remaining variance",
                _text(figures["remaining_variance"], ".3f"),
                f"of pixels, over that of real images{within}; 0 is one image",
            ),
        ]

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """A line of images a row, one above the other."""
        from diffusion_lab.reporting.study import image_page

        return image_page(names, samples)

    @cached_property
    def _real(self) -> RealImages:
        from diffusion_lab.metrics.features import RealImages

        self.data.prepare_data()
        return RealImages(*self.data.images[:4], num_classes=len(self.data.class_names))

    @cached_property
    def _yardstick(self) -> Yardstick:
        from diffusion_lab.data.files import user_cache_dir
        from diffusion_lab.metrics.features import yardstick

        real = self._real
        # A folder marked read-only is left alone, also by a user who could write to it.
        writable = self.beside.is_dir() and self.beside.stat().st_mode & 0o222
        folders = [self.beside, user_cache_dir()] if writable else [user_cache_dir()]
        bars: list[Progress] = []

        def show(step: int, steps: int, loss: float) -> None:
            if not bars:
                bars.append(Progress(steps))
                bars[0].begin(f"training a classifier of {self.data.images.name}, once")
            bars[0](1)

        made = yardstick(real, folders, progress=show)
        if bars:
            bars[0].end()
        return made


class PointRuler:
    """The sliced Wasserstein distance of clouds of points, see `metrics.points`.

    Args:
        data: A data module that has `points`.
    """

    shown, unit = 2000, "points"

    def __init__(self, data: Any) -> None:
        self.data = data

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Figures of points (N, d)."""
        from diffusion_lab.metrics.diversity import remaining_variance
        from diffusion_lab.metrics.points import score_points

        train, _, test, test_labels = self.data.points[:4]
        figures = score_points(samples, train, test)
        remaining = remaining_variance(samples, test, labels, test_labels)
        return figures | {"remaining_variance": remaining}

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        count = figures["num_samples"]
        return [
            ("sliced Wasserstein", f"{figures['sw']:.4f}", "distance to test points"),
            ("... of real points", f"{figures['sw_test']:.4f}", f"{count} training points"),
            ("SW ratio", f"{figures['sw_ratio']:.2f}", "of the two; 1 is ideal"),
            (
                "remaining variance",
                f"{figures['remaining_variance']:.3f}",
                "over that of test points; 0 is one point",
            ),
        ]

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """A scatter plot a row, side by side, over test points in grey."""
        from diffusion_lab.reporting.study import point_page

        return point_page(names, samples, self.data.points.test[: self.shown])


def _text(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
