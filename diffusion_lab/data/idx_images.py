"""What the data sets in MNIST's format share: four files, where they lie, how they are checked.

The files lie where torchvision keeps them, ``<data_dir>/<name>/raw``, and come from torchvision's
addresses; they are read here, because torchvision checks neither what it reads nor the time a
download takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from diffusion_lab.data.download import check_hash, download, expand
from diffusion_lab.data.idx import read_pair
from diffusion_lab.data.image_module import ImageDataModule, Images
from diffusion_lab.data.in_memory import SubsetArguments
from diffusion_lab.errors import DataError
from diffusion_lab.files import sha256
from diffusion_lab.ranges import Count, Positive, Seed, checked


class IdxImages(ImageDataModule):
    """Base of the sets in MNIST's format: a new one states the constants below.

    Args:
        data_dir: folder that holds (or will hold) `directory` with the four files.
        shape: see `ImageDataModule`, as the next five.
        num_classes: the number of classes, or null for a model without classes.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set.
        seed: with the epoch, decides the order of training images.
        mean: mean of the training images, scaled to [-1, 1]; null for the set's own.
        std: their standard deviation; null for the set's own.
        horizontal_flip: see `ImageDataModule`.
        download: whether missing files may be fetched.
        download_timeout: seconds without an answer before a server is given up.
        **subset: `train_images` and `exclude`, see `MemoryDataModule`.
    """

    title: str
    """What the set is called in messages."""
    directory: str
    """Folder of the files in `data_dir`."""
    addresses: tuple[str, ...]
    """Addresses in front of a packed file's name, tried in turn."""
    packed: dict[str, str]
    """Each file's name, without .gz, and the SHA-256 of the packed file, empty for an unknown one;
    in the order training images, their labels, test images, their labels."""
    moments: tuple[float, float]
    """Mean and standard deviation of the training images in [-1, 1]."""
    counts: tuple[int, int] = (60_000, 10_000)
    """How many training and test images there are."""

    @checked
    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        shape: Sequence[Count] = (1, 28, 28),
        num_classes: Count | None = 10,
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        validation_size: Count = 5000,
        seed: Seed = 0,
        mean: float | None = None,
        std: Positive | None = None,
        horizontal_flip: bool = False,
        download: bool = True,
        download_timeout: Positive = 10.0,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            shape,
            num_classes,
            batch_size,
            eval_batch_size,
            validation_size,
            seed,
            self.moments[0] if mean is None else mean,
            self.moments[1] if std is None else std,
            horizontal_flip,
            **subset,
        )
        self.data_dir = Path(data_dir).expanduser()
        self.download, self.download_timeout = download, download_timeout
        self._reason = "data.download=false" if not download else "not downloaded yet"

    @property
    def folder(self) -> Path:
        """Where the four files are expected."""
        return self.data_dir / self.directory / "raw"

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        return [name for name in self.packed if not (self.folder / name).is_file()]

    def prepare_data(self) -> None:
        """Expand or download what is missing; failure is settled in `load`, alike on all ranks."""
        for name in self.missing():
            target = self.folder / name
            if target.with_name(f"{name}.gz").is_file():
                self._expand(name)
                continue
            if not self.download:
                return
            expected = ("sha256", self.packed[name]) if self.packed[name] else None
            urls = [f"{mirror}{name}.gz" for mirror in self.addresses]
            try:
                download(urls, target, self.download_timeout, expected)
            except (DataError, OSError) as error:
                self._reason = str(error)
                return

    def _expand(self, name: str) -> None:
        packed = self.folder / f"{name}.gz"
        if self.packed[name]:
            check_hash(packed, self.packed[name])
        expand(packed, self.folder / name)

    def load(self) -> Images:
        """Read and check the files, or settle what happens without them."""
        if self.missing():
            return self.without_files()
        paths = [self.folder / name for name in self.packed]
        classes = len(self.class_names)
        train = read_pair(paths[0], paths[1], classes)
        test = read_pair(paths[2], paths[3], classes)
        self.check_files(paths, train[0].shape, test[0].shape)
        found = {path.name: sha256(path) for path in paths}
        return Images(*train, *test, name=self.directory.lower(), sha256=found)

    def check_files(self, paths: Sequence[Path], train: torch.Size, test: torch.Size) -> None:
        """Refuse files that read well and are not those of the set.

        Args:
            paths: the four files.
            train: shape of the training images.
            test: shape of the test images.

        Raises:
            DataError: names the file and the remedy.
        """
        for path, found, count in zip(paths[::2], (train, test), self.counts, strict=True):
            if found != (count, *self.original):
                raise DataError(
                    f"{path} holds images of {list(found)}, {self.title} has "
                    f"{[count, *self.original]}: delete it and get it again"
                )

    def without_files(self) -> Images:
        """What happens where files are missing: here an error; a set with a stand-in returns it.

        Raises:
            DataError: names the files, their folder, the addresses and the remedy.
        """
        raise DataError(
            f"{self.title} is missing ({self._reason}): {self.remedy()}; the files are at "
            f"{' or '.join(self.addresses)}; data=digits needs no files at all"
        )

    def remedy(self) -> str:
        """What to do about missing files, as a clause."""
        return (
            f"put {', '.join(self.missing())} (or the same with .gz) into {self.folder.resolve()}, "
            "or say where they are by paths.data_dir=PATH or the environment variable "
            "DIFFUSION_LAB_DATA"
        )
