"""What all data sets of small images share: kept as bytes, padded, scaled late."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusion_lab.data.in_memory import Held, MemoryDataModule, SubsetArguments
from diffusion_lab.errors import DataError
from diffusion_lab.pixels import from_bytes
from diffusion_lab.ranges import Count, Positive, Seed, checked


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


class ImageDataModule(MemoryDataModule):
    """Base of the image data sets: a new one writes `load` alone.

    Batches are ``(images, labels)``: uint8 from the loaders, and after the transfer to the device
    float32 in [-1, 1].

    Args:
        shape: ``(C, H, W)`` of an image; smaller originals are padded with black, evenly.
        num_classes: the number of classes, or null for a model without classes.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set, by a fixed seed, for validation.
        seed: with the epoch, decides the order of training images.
        mean: mean of the training images, scaled to [-1, 1].
        std: their standard deviation.
        horizontal_flip: mirror about half of the training images, others in each epoch; not for
            images whose sides mean something, as those of letters do.
        **subset: `train_images` and `exclude`, see `MemoryDataModule`.

    Raises:
        ArgumentError: a number out of range.
        DataError: a shape or a number of classes that the images do not have.
    """

    class_names = tuple("0123456789")
    original: tuple[int, int, int] | None = (1, 28, 28)
    """``(C, H, W)`` of the images that `load` returns; None where they are brought to any."""

    @checked
    def __init__(
        self,
        shape: Sequence[Count] = (1, 28, 28),
        num_classes: Count | None = 10,
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        validation_size: Count = 5000,
        seed: Seed = 0,
        mean: float = -0.739,
        std: Positive = 0.616,
        horizontal_flip: bool = False,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            shape,
            num_classes,
            batch_size,
            eval_batch_size,
            validation_size,
            seed,
            mean,
            std,
            **subset,
        )
        self.horizontal_flip = horizontal_flip
        self._check_shape()

    def _check_shape(self) -> None:
        """Refuse a shape that the images cannot be brought to."""
        assert self.original is not None
        c, h, w = self.original
        if len(self.shape) != 3 or self.shape[0] != c or self.shape[1] < h or self.shape[2] < w:
            raise DataError(
                f"shape={list(self.shape)}: {type(self).__name__} has images of {[c, h, w]}, "
                "which can be padded to a larger height and width only"
            )

    @abstractmethod
    def load(self) -> Images:
        """Read and check everything; called once a process.

        Raises:
            DataError: files that are damaged or missing.
        """

    def read(self) -> Held:
        """The images of `load`, padded to `shape`."""
        data = self.load()
        padded = data._replace(
            images=self._pad(data.images), test_images=self._pad(data.test_images)
        )
        return Held(*padded)

    def _pad(self, images: Tensor) -> Tensor:
        tall, wide = self.shape[1] - images.shape[2], self.shape[2] - images.shape[3]
        if not tall and not wide:
            return images
        # Black is 0 here and becomes -1, the background, when scaled.
        return F.pad(images, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))

    @property
    def images(self) -> Images:
        """The whole data set, read when first asked for."""
        return Images(*self.held)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Scale uint8 images, now on the device, to float32 in [-1, 1]."""
        images, labels = batch
        if images.dtype == torch.uint8:
            images = from_bytes(images)
        return images, labels
