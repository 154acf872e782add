"""What all data sets of small images share: held in memory, split by a fixed seed, scaled late."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn import functional as F

from diffusion_lab.data.loader import TensorLoader, permutation

SPLIT_SEED = 0
"""Seed of the validation split: one constant, so that runs of any seed compare on one set."""


class Images(NamedTuple):
    """A data set as read: uint8 images ``(N, C, H, W)``, int64 labels ``(N,)``, and its origin.

    Attributes:
        images: the official training images, validation included.
        labels: their classes.
        test_images: held-out images, never trained on.
        test_labels: their classes.
        name: what the data set is called in records.
        sha256: file name -> SHA-256.
        fallback: None, or one line that says what was wanted and why this was taken instead.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    name: str
    sha256: dict[str, str]
    fallback: str | None = None


class ImageDataModule(LightningDataModule, ABC):
    """Base of the image data sets: a new one writes `load` alone.

    Batches are ``(images, labels)``: uint8 from the loaders, and after the transfer to the device
    float32 in [-1, 1]. Labels are delivered whether or not the model uses them.

    Args:
        shape: ``(C, H, W)`` of an image; smaller originals are padded with black, evenly.
        num_classes: the number of classes, or null for a model without classes.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set, by a fixed seed, for validation.
        seed: with the epoch, decides the order of training images.

    Raises:
        ValueError: names the argument, its value and what is allowed.
    """

    class_names: tuple[str, ...] = tuple("0123456789")
    """Names of the classes, by label."""
    original: tuple[int, int, int] = (1, 28, 28)
    """``(C, H, W)`` of the images that `load` returns."""

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        num_classes: int | None = 10,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        validation_size: int = 5000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self.num_classes, self.seed = num_classes, seed
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.validation_size = validation_size
        self._check()
        self._images: Images | None = None

    def _check(self) -> None:
        c, h, w = self.original
        if len(self.shape) != 3 or self.shape[0] != c or self.shape[1] < h or self.shape[2] < w:
            raise ValueError(
                f"shape={list(self.shape)}: {type(self).__name__} has images of {[c, h, w]}, "
                "which can be padded to a larger height and width only"
            )
        if self.num_classes not in (None, len(self.class_names)):
            raise ValueError(
                f"num_classes={self.num_classes}: {type(self).__name__} has "
                f"{len(self.class_names)} classes; give that or null (no classes)"
            )
        for name in ("batch_size", "eval_batch_size", "validation_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")

    @abstractmethod
    def load(self) -> Images:
        """Read and check everything; called once a process.

        Raises:
            DataError: files that are damaged or missing.
        """

    def setup(self, stage: str | None = None) -> None:
        """Read the data on this process; later calls do nothing."""
        if self._images is not None:
            return
        data = self.load()
        count = len(data.images)
        if self.validation_size >= count:
            raise ValueError(
                f"validation_size={self.validation_size}: {data.name} has {count} training images; "
                f"use at most {count - 1}"
            )
        self._images = data._replace(
            images=self._pad(data.images), test_images=self._pad(data.test_images)
        )

    def _pad(self, images: Tensor) -> Tensor:
        tall, wide = self.shape[1] - images.shape[2], self.shape[2] - images.shape[3]
        if not tall and not wide:
            return images
        # Black is 0 here and becomes -1, the background, when scaled.
        return F.pad(images, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))

    @property
    def images(self) -> Images:
        """The whole data set, read when first asked for."""
        self.setup()
        assert self._images is not None
        return self._images

    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and the validation images, from a fixed seed."""
        order = permutation(len(self.images.images), "validation split", SPLIT_SEED)
        return order[self.validation_size :], order[: self.validation_size].sort().values

    @property
    def source(self) -> dict[str, Any]:
        """Plain record of the data for checkpoints and summaries; reads the data if need be."""
        data = self.images
        count = len(data.images)
        return {
            "name": data.name,
            "sha256": dict(data.sha256),
            "sizes": {
                "train": count - self.validation_size,
                "validation": self.validation_size,
                "test": len(data.test_images),
            },
            "split_seed": SPLIT_SEED,
            "fallback": data.fallback,
        }

    def _loader(self, images: Tensor, labels: Tensor, train: bool) -> TensorLoader:
        trainer = self.trainer
        return TensorLoader(
            (images, labels),
            self.batch_size if train else self.eval_batch_size,
            seed=self.seed,
            shuffle=train,
            drop_last=train,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def train_dataloader(self) -> TensorLoader:
        """Shuffled training batches; the last, smaller one of an epoch is left out."""
        train, _ = self.split()
        return self._loader(self.images.images[train], self.images.labels[train], train=True)

    def val_dataloader(self) -> TensorLoader:
        """Validation batches, in one fixed order."""
        _, held = self.split()
        return self._loader(self.images.images[held], self.images.labels[held], train=False)

    def test_dataloader(self) -> TensorLoader:
        """The official test set, in its own order."""
        return self._loader(self.images.test_images, self.images.test_labels, train=False)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images, now on the device, to float32 in [-1, 1]."""
        images, labels = batch
        if images.dtype == torch.uint8:
            images = images.to(torch.float32).mul_(2 / 255).sub_(1)
        return images, labels
