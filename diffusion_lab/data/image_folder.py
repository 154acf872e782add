"""A folder of pictures of any size as a data set; see `listing` for the layouts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Unpack

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from diffusion_lab.data.decoding import decoded
from diffusion_lab.data.image_module import ImageDataModule, Images
from diffusion_lab.data.in_memory import SubsetArguments
from diffusion_lab.data.listing import Listing, fingerprint, list_images
from diffusion_lab.errors import DataError
from diffusion_lab.files import user_cache_dir
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, Positive, Seed, checked

FORMAT = 1
"""Raised where the same files give other pixels."""
VALIDATION = 5000
"""Most images cut for validation where no number is given; else a tenth."""


class ImageFolder(ImageDataModule):
    """Pictures in a folder, resized once and held in memory as bytes.

    Args:
        folder: where they lie.
        shape: ``(C, H, W)`` to which they are brought, C = 1 (grey) or 3 (colour).
        crop: side of the square that is cut from the centre first, in pixels of the files; null
            for none.
        num_classes: the number of sub-folders, or null for a model without classes.
        test_share: of the images of each class, held out for testing by a fixed seed, where the
            folder has no split of its own; above 0 and below 1.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set; null for a tenth, at most 5,000.
        seed: with the epoch, decides the order of training images.
        mean: mean of the training images, scaled to [-1, 1].
        std: their standard deviation.
        horizontal_flip: see `ImageDataModule`.
        cache: folder in which the decoded images are kept; null for the user's cache.
        **subset: `train_images` and `exclude`, see `MemoryDataModule`.
    """

    original = None

    @checked
    def __init__(
        self,
        folder: str | os.PathLike[str],
        shape: Sequence[Count] = (3, 64, 64),
        crop: Count | None = None,
        num_classes: Count | None = None,
        test_share: Annotated[float, Gt(0), Lt(1)] = 0.1,
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        validation_size: Count | None = None,
        seed: Seed = 0,
        mean: float = 0.0,
        std: Positive = 0.5,
        horizontal_flip: bool = False,
        cache: str | os.PathLike[str] | None = None,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            shape,
            num_classes,
            batch_size,
            eval_batch_size,
            VALIDATION if validation_size is None else validation_size,
            seed,
            mean,
            std,
            horizontal_flip,
            **subset,
        )
        self.folder, self.crop = Path(folder).expanduser(), crop
        self.test_share = test_share
        self.cache = user_cache_dir() if cache is None else Path(cache).expanduser()
        self._tenth = validation_size is None

    def _check_shape(self) -> None:
        if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise DataError(
                f"shape={list(self.shape)}: give [1, H, W] for grey or [3, H, W] for colour images"
            )

    def _check_classes(self) -> None:
        """Nothing yet: which classes there are is known once the folder is looked at."""

    @cached_property
    def listing(self) -> Listing:
        """The folder's files and classes, looked at when first asked for.

        Raises:
            DataError: no images, an unknown layout, or other classes than `num_classes` says.
        """
        found = list_images(self.folder)
        names = found.class_names
        if self.num_classes not in (None, len(names)):
            there = (
                f"{len(names)} sub-folders with images" if names else "no sub-folders of classes"
            )
            raise DataError(
                f"data.num_classes={self.num_classes}: data.folder={self.folder} has {there}; give "
                f"data.num_classes={len(names) or 'null'}"
            )
        return found

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the sub-folders, by label; none where the images lie flat."""
        return self.listing.class_names

    def prepare_data(self) -> None:
        """Decode what is not kept yet, so that other processes need not."""
        self._pixels()

    def _pixels(self) -> tuple[Tensor, str]:
        files, said = self.listing.files, f"{FORMAT} {self.shape} {self.crop}"
        name = f"images-{fingerprint(self.folder, files, said)[:16]}.bin"
        return decoded(files, self.shape, self.crop, self.cache / name)

    def load(self) -> Images:
        """Read the images and split them."""
        images, sha256 = self._pixels()
        labels = torch.tensor(self.listing.labels).clamp_min(0)
        test = self._held_out(labels)
        train = ~test
        if self._tenth:
            self.validation_size = max(1, min(VALIDATION, int(train.sum()) // 10))
        return Images(
            images=images[train],
            labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
            name=self.folder.resolve().name or "folder",
            sha256={f"pixels of {len(images)} images": sha256},
        )

    def _held_out(self, labels: Tensor) -> Tensor:
        """Which images are for testing, bool ``(N,)``; a share of each class without a split."""
        if self.listing.is_test is not None:
            return torch.tensor(self.listing.is_test)
        test = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(int(labels.max()) + 1):
            members = (labels == label).nonzero().squeeze(1)
            if len(members) < 2:
                name = self.class_names[label] if self.class_names else self.folder
                raise DataError(
                    f"data.folder={self.folder}: {name} has one image only, and one is held out "
                    "for testing; add some, or leave the class out"
                )
            count = min(max(1, round(self.test_share * len(members))), len(members) - 1)
            test[members[permutation(len(members), "folder test", label)[:count]]] = True
        return test
