"""What all data sets held in memory share: one fixed split, loaders, and a record of the source."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

from lightning.pytorch import LightningDataModule
from torch import Tensor

from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.data.subset import Subset
from diffusion_lab.errors import DataError
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, Natural, Positive, Seed, checked

MOMENT_TOLERANCE = 0.05
"""How far the stated mean and standard deviation may be from those of the samples."""

SPLIT_SEED = 0
"""Seed of the validation split: one constant, so that runs of any seed compare on one set."""


class Held(NamedTuple):
    """A data set in memory: samples ``(N, *shape)``, int64 labels ``(N,)``, and its origin.

    Attributes:
        train: the training samples, validation included.
        labels: their classes.
        test: held-out samples, never trained on.
        test_labels: their classes.
        name: what the data set is called in records.
        sha256: file name (or maker) -> SHA-256.
        fallback: None, or one line that says what was wanted and why this was taken instead.
    """

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    name: str
    sha256: dict[str, str]
    fallback: str | None = None


class SubsetArguments(TypedDict, total=False):
    """Arguments that every data set hands on to `MemoryDataModule`."""

    train_images: int | None
    exclude: Sequence[int] | None


class MemoryDataModule(LightningDataModule, ABC):
    """Base of every data set here; batches are ``(samples, labels)``.

    Labels are delivered whether or not the model uses them.

    Args:
        shape: shape of one sample.
        num_classes: the number of classes, or null for a model without classes.
        batch_size: samples a training step and process.
        eval_batch_size: samples a validation or test step and process.
        validation_size: samples cut from the training set, by a fixed seed, for validation.
        seed: with the epoch, decides the order of training samples.
        mean: mean of all numbers of the training set, as a model sees them.
        std: their standard deviation; what EDM's sigma_data is taken from.
        train_images: train on so many samples only, of each class the same number as far as there
            are enough; `seed` decides which, and a larger subset holds the smaller ones. Null:
            on all.
        exclude: classes that are left out of training. Validation and test keep them, so that
            what was not learned can be measured.

    Raises:
        ArgumentError: a number out of range.
        DataError: a number of classes that the data does not have.
    """

    class_names: tuple[str, ...]
    """Names of the classes, by label."""
    horizontal_flip: bool = False
    """Whether training batches hold about half of their images mirrored."""

    @checked
    def __init__(
        self,
        shape: Sequence[Count],
        num_classes: Count | None,
        batch_size: Count,
        eval_batch_size: int,
        validation_size: Count,
        seed: Seed,
        mean: float,
        std: Positive,
        *,
        train_images: Count | None = None,
        exclude: Sequence[Natural] | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.shape = tuple(int(n) for n in shape)
        self.num_classes, self.seed = num_classes, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_size = validation_size
        self.subset = Subset(train_images, tuple(exclude or ()), seed)
        self._held: Held | None = None
        self._check_classes()
        self._training: Tensor

    def _check_classes(self) -> None:
        """Refuse a number of classes, or classes to leave out, that the data does not have."""
        if self.num_classes not in (None, len(self.class_names)):
            raise DataError(
                f"num_classes={self.num_classes}: {type(self).__name__} has "
                f"{len(self.class_names)} classes; give that or null (no classes)"
            )
        self.subset.check_classes(self.class_names)

    @abstractmethod
    def read(self) -> Held:
        """Read or make everything; called once a process."""

    def setup(self, stage: str | None = None) -> None:
        """Read the data on this process; later calls do nothing."""
        if self._held is not None:
            return
        held = self.read()
        count = len(held.train)
        if self.validation_size >= count:
            raise DataError(
                f"validation_size={self.validation_size}: {held.name} has {count} training "
                f"samples; use at most {count - 1}"
            )
        self.subset.check_classes(self.class_names)
        chosen = self.subset.of(held.labels, self._cut(count)[0])
        self._check_moments(held.train)
        self._held, self._training = held, chosen

    def _check_moments(self, samples: Tensor) -> None:
        """Warn where mean and std are not those of the data (another shape, a stand-in)."""
        some = samples[:: max(1, len(samples) // 10_000)]  # evenly: they may be sorted by class
        scaled, _ = self.on_after_batch_transfer((some, None), 0)
        mean, std = float(scaled.mean()), float(scaled.std())
        if abs(mean - self.mean) > MOMENT_TOLERANCE or abs(std - self.std) > MOMENT_TOLERANCE:
            warnings.warn(
                f"data.mean={self.mean:g} and data.std={self.std:g} are stated, but these samples "
                f"have {mean:.3f} and {std:.3f}: set them where a recipe uses them (EDM does)",
                stacklevel=1,
            )

    @property
    def held(self) -> Held:
        """The whole data set, read when first asked for."""
        self.setup()
        assert self._held is not None
        return self._held

    def _cut(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices of the samples not for validation and of those for it, from a fixed seed."""
        order = permutation(count, "validation split", SPLIT_SEED)
        return order[self.validation_size :], order[: self.validation_size].sort().values

    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the samples trained on (see `train_images`, `exclude`) and for validation."""
        _, validation = self._cut(len(self.held.train))
        return self._training, validation

    @property
    def source(self) -> dict[str, Any]:
        """Plain record of the data for checkpoints and summaries; reads the data if need be.

        The record of a subset also holds `subset`, and in `sha256` the hash of its indices.
        """
        held, subset = self.held, self.subset
        record: dict[str, Any] = {
            "name": held.name,
            "sha256": dict(held.sha256),
            "classes": list(self.class_names),
            "sizes": {
                "train": len(self._training),
                "validation": self.validation_size,
                "test": len(held.test),
            },
            "split_seed": SPLIT_SEED,
            "fallback": held.fallback,
        }
        if not subset.is_all:
            record["sha256"]["training subset"] = subset.sha256(self._training)
            record["subset"] = subset.record()
        return record

    def _loader(self, samples: Tensor, labels: Tensor, train: bool) -> TensorLoader:
        trainer = self.trainer
        return TensorLoader(
            (samples, labels),
            self.batch_size if train else self.eval_batch_size,
            seed=self.seed,
            shuffle=train,
            drop_last=train,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            flip=train and self.horizontal_flip,
        )

    def train_dataloader(self) -> TensorLoader:
        """Shuffled training batches; the last, smaller one of an epoch is left out."""
        train, _ = self.split()
        return self._loader(self.held.train[train], self.held.labels[train], train=True)

    def val_dataloader(self) -> TensorLoader:
        """Validation batches, in one fixed order."""
        _, cut = self.split()
        return self._loader(self.held.train[cut], self.held.labels[cut], train=False)

    def test_dataloader(self) -> TensorLoader:
        """The test set, in its own order."""
        return self._loader(self.held.test, self.held.test_labels, train=False)
