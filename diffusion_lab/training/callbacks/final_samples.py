"""A table of samples by the final weights, and what a classifier reads in them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from diffusion_lab.generate.labels import expand_labels
from diffusion_lab.ranges import Count, Seed, checked
from diffusion_lab.training.callbacks.fixed_samples import every_class, fixed_samples
from diffusion_lab.training.loggers import log_images, log_table, takes_tables
from diffusion_lab.training.module import DiffusionModule

COLUMNS = ("image", "asked", "predicted", "confidence")

Reader = Callable[[Tensor], Tensor]


class FinalSamples(Callback):
    """Gives the loggers a table of final samples: image, class asked for, class read, confidence.

    It stands behind the callback of averaging, whose weights it draws with. The classifier is the
    one that `evaluate` keeps; none is trained here, and without it two columns stay empty, which
    is said once. Nothing is drawn where no logger takes tables, of points, or by a classifier.

    Args:
        reader: Data module -> function of samples (N, C, H, W) that gives the probability of each
            class (N, K), or None where no classifier is at hand; see `metrics.quick.kept_reader`.
        num_samples: Rows of the table, classes in turn.
        seed: Seed of the noise; image k is image k of the grids with the same seed.

    Raises:
        ArgumentError: num_samples below 1.
    """

    @checked
    def __init__(
        self, reader: Callable[[Any], Reader | None], num_samples: Count = 20, seed: Seed = 0
    ) -> None:
        self.reader = reader
        self.num_samples = num_samples
        self.seed = seed

    def on_train_end(self, trainer: pl.Trainer, pl_module: DiffusionModule) -> None:
        """Draw on every process, read and log on the first."""
        if not (trainer.global_step and takes_tables(trainer.loggers) and pl_module.draws_images):
            return
        samples = fixed_samples(trainer, pl_module, self.num_samples, seed=self.seed).cpu()
        if not trainer.is_global_zero:
            return
        labels = expand_labels(every_class(pl_module), self.num_samples, pl_module.num_classes)
        asked = [None] * len(samples) if labels is None else labels.tolist()
        try:
            read = self._read(trainer, samples)
        except Exception as error:
            warnings.warn(
                f"callbacks.final_samples.reader failed, so no class is predicted: "
                f"{type(error).__name__}: {error}",
                stacklevel=2,
            )
            read = [(None, None)] * len(samples)
        self._log(trainer, samples, [(a, *r) for a, r in zip(asked, read, strict=True)])

    def _read(self, trainer: pl.Trainer, samples: Tensor) -> list[tuple[int | None, float | None]]:
        """Class and its probability, sample by sample; None where nothing can read them."""
        data = getattr(trainer, "datamodule", None)
        names = getattr(data, "class_names", None)
        if names is not None and len(names) < 2:
            return [(None, None)] * len(samples)  # there is nothing to be read
        reader = None if data is None else self.reader(data)
        if reader is None:
            print(
                "final_samples: no classifier of this data is kept, so no class is predicted; "
                "`python -m diffusion_lab.evaluate ckpt=RUN` trains and keeps one"
            )
            return [(None, None)] * len(samples)
        best = reader(samples).max(1)
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    @staticmethod
    def _log(trainer: pl.Trainer, samples: Tensor, told: list[tuple[Any, ...]]) -> None:
        """The table, and a picture with the same words under each sample."""
        from diffusion_lab.figures.grids import image_grid

        step = trainer.global_step - 1
        images = [image_grid(sample[None], columns=1, scale=2, gap=0) for sample in samples]
        rows = [[image, *words] for image, words in zip(images, told, strict=True)]
        log_table(trainer.loggers, "final_samples", COLUMNS, rows, step)
        sheet = image_grid(samples, columns=10, scale=2, labels=[_words(*words) for words in told])
        log_images(trainer.loggers, "samples/final", sheet, step)


def _words(asked: int | None, predicted: int | None, confidence: float | None) -> str:
    """As in "3 > 8 99%", where a three was asked for and an eight is read."""
    parts = [] if asked is None else [str(asked)]
    if predicted is not None and confidence is not None:
        parts.append(f"> {predicted} {100 * confidence:.0f}%")
    return " ".join(parts)
