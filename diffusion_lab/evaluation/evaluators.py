"""What is measured: images in the features of two classifiers, points by distances of their sets.

A printed line holds a score, its 95 % interval, and after "real" the score of held-out real data
of the same number and classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.errors import ConfigError
from diffusion_lab.evaluation.progress_line import ProgressLine
from diffusion_lab.evaluation.request import data_of
from diffusion_lab.metrics.catalog import COST, METRICS

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from diffusion_lab.data.data_module import MemoryDataModule
    from diffusion_lab.data.toy import PointsDataModule
    from diffusion_lab.evaluation.request import EvaluationRequest
    from diffusion_lab.metrics.features import RealImages
    from diffusion_lab.metrics.scores import Scored, Scorer

ScoreLine = tuple[str, str, str]
"""Name, value and meaning of a score; the meaning begins with interval and real data's value."""


class Evaluator(ABC):
    """Scores samples, and shows them side by side."""

    shown: int
    """How many samples of a row a page shows."""
    unit: str
    """What a sample is called, in the plural."""
    data: MemoryDataModule
    """The data of real samples."""

    @abstractmethod
    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """Score samples (N, *shape); see `metrics.scores` and `metrics.points`."""

    @abstractmethod
    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """Draw several sets of samples, each with its name."""

    @abstractmethod
    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """Pictures of scored samples (N, *shape), on the CPU, by the end of their file's name."""

    def counts(self, scored: Scored) -> dict[str, Any]:
        """The confusion matrix (row = requested, column = predicted class) and `class_names`."""
        return {}

    def lines(self, scores: dict[str, Any]) -> list[ScoreLine]:
        """A line for each metric that has a value, to be printed."""
        lines = []
        for name, row in METRICS.items():
            if row.group == COST or scores.get(name) is None:
                continue
            ends = ("", "_low", "_high", "_real")
            value, low, high, real = (_formatted(scores.get(name + e), row.spec) for e in ends)
            interval = f"{low} to {high}" if scores.get(f"{name}_low") is not None else ""
            lines.append((row.title, value, f"{interval:<19} {f'real {real}':<12} {row.meaning}"))
        return lines


def _formatted(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def evaluator_of(request: EvaluationRequest) -> Evaluator:
    """The evaluator of the data that a request's model was trained on: of points, or of images."""
    cfg = request.cfg
    data = data_of(cfg, request.stored, "is compared with those")
    if not hasattr(type(data), "splits") or len(data.shape) not in (1, 3):
        raise ConfigError(
            f"data._target_={cfg.data['_target_']} has neither points nor images to compare "
            "samples with"
        )
    if len(data.shape) == 1:
        return PointEvaluator(data)
    beside = Path(str(cfg.paths.data_dir)).expanduser()
    return ImageEvaluator(data, beside, bool(cfg.second_classifier))


class ImageEvaluator(Evaluator):
    """Classes, distances, neighbours, diversity and memorisation of images, see `metrics.scores`.

    Args:
        data: An image data module.
        beside: Folder of the data, where the classifiers are cached if it can be written.
        second: Whether to measure with a second, independently trained classifier too.
    """

    shown, unit = 20, "images"

    def __init__(self, data: MemoryDataModule, beside: Path, second: bool = True) -> None:
        self.data, self.beside, self.second = data, beside, second

    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """Score images (N, C, H, W) in [-1, 1]."""
        return self._scorer(samples, labels)

    def lines(self, scores: dict[str, Any]) -> list[ScoreLine]:
        """The lines of all metrics, and one for each classifier."""
        lines = super().lines(scores)
        for end, title in (("", "classifier"), ("2", "second classifier")):
            if f"classifier{end}_sha256" in scores:
                task = "classes" if len(self.data.class_names) > 1 else "rotations"
                sha256, space = (
                    scores[f"classifier{end}_sha256"][:12],
                    scores[f"feature_space{end}"],
                )
                accuracy = f"{scores[f'classifier{end}_test_accuracy']:.2%}"
                text = f"test accuracy ({task}); {space}, weights {sha256}"
                lines.append((title, accuracy, text))
        return lines

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """Draw one line of images per set."""
        from diffusion_lab.figures.evaluation_figures import image_page

        return image_page(names, samples)

    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """Draw the confusion of classes, and samples beside their nearest training images."""
        from diffusion_lab.figures.evaluation_figures import confusion_image, nearest_image
        from diffusion_lab.pixels import from_bytes

        pictures = {}
        if scored.confusion is not None:
            pictures["confusion"] = confusion_image(scored.confusion, self.data.class_names)
        if scored.nearest is not None:
            training = from_bytes(self._real.images[scored.nearest.index])
            pictures["nearest"] = nearest_image(samples, training, scored.nearest.distance)
        return pictures

    def counts(self, scored: Scored) -> dict[str, Any]:
        """See `Evaluator`; {} without classes."""
        if scored.confusion is None:
            return {}
        return {"confusion": scored.confusion.tolist(), "class_names": [*self.data.class_names]}

    @cached_property
    def _real(self) -> RealImages:
        from diffusion_lab.metrics.features import RealImages

        self.data.prepare_data()
        return RealImages(*self.data.splits[:4], num_classes=len(self.data.class_names))

    @cached_property
    def _scorer(self) -> Scorer:
        from diffusion_lab.metrics.cache import cache_dirs
        from diffusion_lab.metrics.features import FIRST, SECOND, feature_space, held_out_distances
        from diffusion_lab.metrics.scores import Scorer

        real, folders = self._real, cache_dirs(self.beside)
        spaces = []
        for name in (FIRST, SECOND)[: 2 if self.second else 1]:
            show = _TrainingProgress(f"{name}, a classifier of {self.data.splits.name}")
            spaces.append(feature_space(real, folders, None, show, name))
            show.end()
        text = "Measuring how near test images are to training images, once."
        held_out = held_out_distances(real, folders, lambda: print(text, flush=True))
        return Scorer(spaces, real, held_out)


class _TrainingProgress:
    """Shows the progress of a training, if there is one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: ProgressLine | None = None

    def __call__(self, step: int, steps: int, loss: float) -> None:
        if self._line is None:
            self._line = ProgressLine(steps)
            self._line.begin(f"training {self._name}, once")
        self._line(1)

    def end(self) -> None:
        if self._line is not None:
            self._line.end()


class PointEvaluator(Evaluator):
    """Distances and variance of sets of points, see `metrics.points`.

    Args:
        data: A data module of points.
    """

    shown, unit = 2000, "points"

    def __init__(self, data: PointsDataModule) -> None:
        self.data = data

    def scored(self, samples: Tensor, labels: Tensor | None) -> Scored:
        """Score points (N, d)."""
        from diffusion_lab.metrics.points import scored_points

        train, _, test, test_labels = self.data.splits[:4]
        return scored_points(samples, train, test, labels, test_labels)

    def page(self, names: Sequence[str], samples: Sequence[Tensor]) -> Image.Image:
        """Draw one scatter plot per set, side by side, over test points in grey."""
        from diffusion_lab.figures.evaluation_figures import point_page

        return point_page(names, samples, self.data.splits.test[: self.shown])

    def pictures(self, scored: Scored, samples: Tensor) -> dict[str, Image.Image]:
        """Draw the density of samples beside that of test points."""
        from diffusion_lab.figures.evaluation_figures import density_image

        return {"density": density_image(samples, self.data.splits.test)}
