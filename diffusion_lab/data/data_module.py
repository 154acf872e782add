"""What all data sets share: one fixed split, loaders, scaling of images, a record of the source.

A data set is a dataclass: its fields are the keys of its yaml file in `conf/data/`, where each is
explained, and what it adds is what differs. Its constants are class attributes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from diffusion_lab.data.loader import TensorLoader
from diffusion_lab.data.subset import Subset
from diffusion_lab.errors import DataError
from diffusion_lab.pixels import from_bytes
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, Natural, Positive, Seed, checked

MOMENT_TOLERANCE = 0.05
"""How far the stated mean and standard deviation may be from those of the samples."""

SPLIT_SEED = 0
"""Seed of the validation split: one constant, so that runs of any seed compare on one set."""


class Splits(NamedTuple):
    """A data set in memory: samples `(N, *shape)`, int64 labels `(N,)`, and its origin.

    Images are uint8 `(N, C, H, W)`, points float32 `(N, 2)`.

    Attributes:
        train: The training samples, those for validation included.
        labels: Their classes.
        test: Test samples, never trained on.
        test_labels: Their classes.
        name: What records call the data set.
        sha256: File name (or maker) -> SHA-256.
        fallback: None, or one line that says what was wanted and why this was taken instead.
    """

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    name: str
    sha256: dict[str, str]
    fallback: str | None = None


@checked
@dataclass(kw_only=True, eq=False)
class MemoryDataModule(LightningDataModule, ABC):
    """Base of every data set here; batches are `(samples, labels)`.

    Labels are delivered whether or not the model uses them.

    Raises:
        ArgumentError: A number out of range.
        DataError: A shape or classes that the data do not have.
    """

    shape: Sequence[Count]
    num_classes: Count | None
    batch_size: Count = 128
    eval_batch_size: Count = 500
    validation_size: Count = 5000
    seed: Seed = 0
    mean: float | None = None
    std: Positive | None = None
    train_images: Count | None = None
    exclude: Sequence[Natural] | None = None

    class_names: ClassVar[tuple[str, ...]]
    """Names of the classes, by label."""
    moments: ClassVar[tuple[float, float]]
    """`mean` and `std` where these are null: those of the training set, as a model sees it."""
    horizontal_flip = False
    """Whether about half of each training batch is mirrored."""

    def __post_init__(self) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in self.shape)
        self.mean = self.moments[0] if self.mean is None else self.mean
        self.std = self.moments[1] if self.std is None else self.std
        self.subset = Subset(self.train_images, tuple(self.exclude or ()), self.seed)
        self._splits: Splits | None = None
        self._training: Tensor
        self._check_classes()
        self._check_shape()

    def _check_classes(self) -> None:
        """Refuse a number of classes, or classes to leave out, that the data do not have."""
        if self.num_classes not in (None, len(self.class_names)):
            raise DataError(
                f"num_classes={self.num_classes}: {type(self).__name__} has "
                f"{len(self.class_names)} classes; give that or null (no classes)"
            )
        self.subset.check_classes(self.class_names)

    @abstractmethod
    def _check_shape(self) -> None:
        """Refuse a shape that the samples do not have."""

    @abstractmethod
    def read(self) -> Splits:
        """Read or make everything; called once a process."""

    def setup(self, stage: str | None = None) -> None:
        """Read the data on this process; later calls do nothing."""
        if self._splits is not None:
            return
        splits = self.read()
        count = len(splits.train)
        if self.validation_size >= count:
            raise DataError(
                f"validation_size={self.validation_size}: {splits.name} has {count} training "
                f"samples; use at most {count - 1}"
            )
        self.subset.check_classes(self.class_names)
        chosen = self.subset.of(splits.labels, self._cut(count)[0])
        self._check_moments(splits.train)
        self._splits, self._training = splits, chosen

    def _check_moments(self, samples: Tensor) -> None:
        """Warn where mean and std are not those of the data (another shape, a stand-in)."""
        some = samples[:: max(1, len(samples) // 10_000)]  # evenly: they may be sorted by class
        scaled, _ = self.on_after_batch_transfer((some, None), 0)
        mean, std = float(scaled.mean()), float(scaled.std())
        assert self.mean is not None and self.std is not None
        if abs(mean - self.mean) > MOMENT_TOLERANCE or abs(std - self.std) > MOMENT_TOLERANCE:
            warnings.warn(
                f"data.mean={self.mean:g} and data.std={self.std:g} are stated, but these samples "
                f"have {mean:.3f} and {std:.3f}: set them where a recipe uses them (EDM does)",
                stacklevel=1,
            )

    @property
    def splits(self) -> Splits:
        """The whole data set, read when first asked for."""
        self.setup()
        assert self._splits is not None
        return self._splits

    def _cut(self, count: int) -> tuple[Tensor, Tensor]:
        """Indices of the samples not for validation and of those for it, from a fixed seed."""
        order = permutation(count, "validation split", SPLIT_SEED)
        return order[self.validation_size :], order[: self.validation_size].sort().values

    def indices(self) -> tuple[Tensor, Tensor]:
        """Of the samples trained on (see `train_images`, `exclude`) and of those for validation."""
        _, validation = self._cut(len(self.splits.train))
        return self._training, validation

    @property
    def source(self) -> dict[str, Any]:
        """Plain record of the data for checkpoints and summaries; reads the data if need be.

        The record of a subset also holds `subset`, and in `sha256` the hash of its indices.
        """
        splits, subset = self.splits, self.subset
        record: dict[str, Any] = {
            "name": splits.name,
            "sha256": dict(splits.sha256),
            "classes": list(self.class_names),
            "sizes": {
                "train": len(self._training),
                "validation": self.validation_size,
                "test": len(splits.test),
            },
            "split_seed": SPLIT_SEED,
            "fallback": splits.fallback,
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
        train, _ = self.indices()
        return self._loader(self.splits.train[train], self.splits.labels[train], train=True)

    def val_dataloader(self) -> TensorLoader:
        """Validation batches, in one fixed order."""
        _, cut = self.indices()
        return self._loader(self.splits.train[cut], self.splits.labels[cut], train=False)

    def test_dataloader(self) -> TensorLoader:
        """The test set, in its own order."""
        return self._loader(self.splits.test, self.splits.test_labels, train=False)


@checked
@dataclass(kw_only=True, eq=False)
class ImageDataModule(MemoryDataModule):
    """Base of the image data sets: a new one writes `load` alone.

    Batches are `(images, labels)`: uint8 from the loaders, and after the transfer to the device
    float32 in [-1, 1]. Images smaller than `shape` are padded with black, evenly.
    """

    shape: Sequence[Count] = (1, 28, 28)
    num_classes: Count | None = 10
    horizontal_flip: bool = False

    class_names = tuple("0123456789")
    moments = (-0.739, 0.616)
    original: ClassVar[tuple[int, int, int] | None] = (1, 28, 28)
    """`(C, H, W)` of the images that `load` returns; None where they are brought to any."""

    def _check_shape(self) -> None:
        assert self.original is not None
        c, h, w = self.original
        if len(self.shape) != 3 or self.shape[0] != c or self.shape[1] < h or self.shape[2] < w:
            raise DataError(
                f"shape={list(self.shape)}: {type(self).__name__} has images of {[c, h, w]}, "
                "which can be padded to a larger height and width only"
            )

    @abstractmethod
    def load(self) -> Splits:
        """Read and check everything; called once a process.

        Raises:
            DataError: Files that are damaged or missing.
        """

    def read(self) -> Splits:
        """The images of `load`, padded to `shape`."""
        splits = self.load()
        return splits._replace(train=self._pad(splits.train), test=self._pad(splits.test))

    def _pad(self, images: Tensor) -> Tensor:
        tall, wide = self.shape[1] - images.shape[2], self.shape[2] - images.shape[3]
        if not tall and not wide:
            return images
        # Black is 0 here and becomes -1, the background, when scaled.
        return F.pad(images, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images, now on the device, to float32 in [-1, 1]."""
        images, labels = batch
        if images.dtype == torch.uint8:
            images = from_bytes(images)
        return images, labels
