"""What is measured: on images by two classifiers, on points by the distance of clouds.

A printed line holds a figure, its 95 % interval, and after "real" what held-out real data of the
same number and classes get: a perfect sampler.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffusion_lab.config.building import instantiate
from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.share_done import ProgressLine
from diffusion_lab.metrics.catalog import COST, METRICS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffusion_lab.data.data_module import MemoryDataModule
    from diffusion_lab.data.toy import PointsDataModule
    from diffusion_lab.evaluation.request import EvaluationRequest
    from diffusion_lab.metrics.features import RealImages
    from diffusion_lab.metrics.scores import Scored, Scorer

Line = tuple[str, str, str]
"""Name, value and meaning of a figure; the meaning begins with interval and perfect value."""


class Evaluator(Protocol):
    """Scores samples, and shows them side by side."""

    shown: int
    """How many samples of a row a page shows."""
    unit: str
    """What a sample is called, in the plural."""

    @property
    def data(self) -> MemoryDataModule:
        """The data of real samples."""
        ...

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Plain figures of samples (N, *shape); see `metrics.scores`, `metrics.points`."""
        ...

    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """The figures, and what pictures and paired comparisons need (`metrics.scores.compare`)."""
        ...

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        ...

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """One captioned block of samples a row."""
        ...

    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """What is seen of scored samples (N, *shape), on the CPU: end of a file's name -> it."""
        ...

    def counts(self, scored: Scored) -> dict[str, Any]:
        """`confusion` (row = asked, column = read) and `class_names`; {} without classes."""
        ...


def evaluator_of(request: EvaluationRequest) -> Evaluator:
    """The evaluator of the data that a request's model was trained on: it has points, or images."""
    from diffusion_lab.data.digits import Digits

    cfg = request.cfg
    data = instantiate(cfg.data, trust=cfg.trust)
    if not hasattr(type(data), "splits") or len(data.shape) not in (1, 3):
        raise ConfigError(
            f"data._target_={cfg.data['_target_']} has neither points nor images to compare "
            "samples with"
        )
    if len(data.shape) == 1:
        return PointEvaluator(data)
    source = request.stored.get("data") or {}
    if source.get("fallback") and source.get("name") == "digits":
        print("This model was trained on the embedded digits and is compared with those.")
        data = Digits(shape=data.shape, num_classes=data.num_classes)
    beside = Path(str(cfg.paths.data_dir)).expanduser()
    return ImageEvaluator(data, beside, bool(cfg.second_classifier))


class ImageEvaluator:
    """Classes, distances, neighbours, diversity and memorisation of images, see `metrics.scores`.

    Args:
        data: An image data module.
        beside: Folder of the data, where the classifiers are kept if they can be.
        second: Whether a second, independently trained classifier measures too.
    """

    shown, unit = 20, "images"

    def __init__(self, data: MemoryDataModule, beside: Path, second: bool = True) -> None:
        self.data, self.beside, self.second = data, beside, second

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Figures of images (N, C, H, W) in [-1, 1]."""
        return self.scored(samples, labels).scores

    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """The figures with what pictures and paired comparisons need."""
        return self._scorer(samples, labels)

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        lines = _lines(figures)
        for end, title in (("", "classifier"), ("2", "second classifier")):
            if f"classifier{end}_sha256" in figures:
                space = figures[f"feature_space{end}"]
                read = "read right" if len(self.data.class_names) > 1 else "its quarter turns told"
                what = f"of the test set, {read}; {space}"
                sha256 = figures[f"classifier{end}_sha256"][:12]
                accuracy = f"{figures[f'classifier{end}_test_accuracy']:.2%}"
                lines.append((title, accuracy, f"{what}, weights {sha256}"))
        return lines

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """A line of images a row, one above the other."""
        from diffusion_lab.figures.evaluation_figures import image_page

        return image_page(names, samples)

    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """Confusion of classes, and samples beside the nearest training images."""
        from diffusion_lab.figures.evaluation_figures import confusion_image, nearest_image

        found = {}
        if scored.confusion is not None:
            found["confusion"] = confusion_image(scored.confusion, self.data.class_names)
        if scored.nearest is not None:
            training = self.training_images(scored.nearest.index)
            found["nearest"] = nearest_image(samples, training, scored.nearest.distance)
        return found

    def counts(self, scored: Scored) -> dict[str, Any]:
        """The confusion matrix, where there are classes."""
        if scored.confusion is None:
            return {}
        return {"confusion": scored.confusion.tolist(), "class_names": [*self.data.class_names]}

    def training_images(self, index: Tensor) -> Tensor:
        """The training images (N, C, H, W) at positions (N,), float in [-1, 1]."""
        from diffusion_lab.pixels import from_bytes

        return from_bytes(self._real.images[index])

    @cached_property
    def _real(self) -> RealImages:
        from diffusion_lab.metrics.features import RealImages

        self.data.prepare_data()
        return RealImages(*self.data.splits[:4], num_classes=len(self.data.class_names))

    @cached_property
    def _scorer(self) -> Scorer:
        from diffusion_lab.metrics.cache import cache_dirs
        from diffusion_lab.metrics.features import (
            FIRST,
            SECOND,
            feature_space,
            held_out_distances,
        )
        from diffusion_lab.metrics.scores import Scorer

        real, folders = self._real, cache_dirs(self.beside)
        spaces = []
        for name in (FIRST, SECOND)[: 2 if self.second else 1]:
            show = _Training(f"{name}, a classifier of {self.data.splits.name}")
            spaces.append(feature_space(real, folders, None, show, name))
            show.end()
        text = "Measuring how near test images are to training images, once."
        held_out = held_out_distances(real, folders, lambda: print(text, flush=True))
        return Scorer(spaces, real, held_out)


class _Training:
    """Shows the progress of a training, if there is one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: ProgressLine | None = None

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if self._bar is None:
            self._bar = ProgressLine(steps)
            self._bar.begin(f"training {self._name}, once")
        self._bar(1)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.end()


class PointEvaluator:
    """Distances and variance of clouds of points, see `metrics.points`.

    Args:
        data: A data module of points.
    """

    shown, unit = 2000, "points"

    def __init__(self, data: PointsDataModule) -> None:
        self.data = data

    def score(self, samples: Tensor, labels: Tensor | None) -> dict[str, Any]:
        """Figures of points (N, d)."""
        return self.scored(samples, labels).scores

    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """The figures with what paired comparisons need."""
        from diffusion_lab.metrics.points import scored_points

        train, _, test, test_labels = self.data.splits[:4]
        return scored_points(samples, train, test, labels, test_labels)

    def lines(self, figures: dict[str, Any]) -> list[Line]:
        """The figures, to be read."""
        return _lines(figures)

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """A scatter plot a row, side by side, over test points in grey."""
        from diffusion_lab.figures.evaluation_figures import point_page

        return point_page(names, samples, self.data.splits.test[: self.shown])

    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """The density of samples beside that of test points."""
        from diffusion_lab.figures.evaluation_figures import density_image

        return {"density": density_image(samples, self.data.splits.test)}

    def counts(self, scored: Scored) -> dict[str, Any]:
        """None: points are not read."""
        return {}


def _lines(figures: dict[str, Any]) -> list[Line]:
    """A line for each metric that there is: value; interval, that of real data, meaning."""
    lines = []
    for name, row in METRICS.items():
        if row.group == COST or figures.get(name) is None:
            continue
        spec = row.spec
        low, high, real = (
            _text(figures.get(name + end), spec) for end in ("_low", "_high", "_real")
        )
        known = figures.get(f"{name}_low") is not None
        interval, perfect = f"{low} to {high}" if known else "", f"real {real}"
        text = f"{interval:<19} {perfect:<12} {row.meaning}"
        lines.append((row.title, _text(figures[name], spec), text))
    return lines


def _text(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
