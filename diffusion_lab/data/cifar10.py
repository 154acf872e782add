"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test colour photographs of 32 x 32.

The files are Python pickles, in ``<data_dir>/cifar-10-batches-py`` as torchvision keeps them, or
in the archive beside that folder. A pickle can run any code, so each file is compared with its
official MD5 first, and read by an unpickler that builds arrays and plain containers alone.
"""

from __future__ import annotations

import gzip
import os
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.data.download import check_hash, download
from diffusion_lab.data.image_module import ImageDataModule, Images
from diffusion_lab.data.in_memory import SubsetArguments
from diffusion_lab.errors import DataError
from diffusion_lab.files import sha256, write_atomically
from diffusion_lab.ranges import Count, Positive, Seed, checked


class CIFAR10(ImageDataModule):
    """CIFAR-10 with checked files and a download that cannot hang.

    Args:
        data_dir: folder that holds (or will hold) `directory` or the archive.
        shape: ``(3, H, W)``; more than 32 x 32 is padded with black.
        num_classes: 10, or null for a model without classes.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set.
        seed: with the epoch, decides the order of training images.
        mean: mean of the training images, scaled to [-1, 1].
        std: their standard deviation.
        horizontal_flip: see `ImageDataModule`.
        download: whether missing files may be fetched (170 MB).
        download_timeout: seconds without an answer before a server is given up.
        **subset: `train_images` and `exclude`, see `MemoryDataModule`.
    """

    class_names = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    original = (3, 32, 32)
    directory = "cifar-10-batches-py"
    archive = "cifar-10-python.tar.gz"
    address = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive_md5 = "c58f30108f718f92721af3b95e74349a"
    md5 = {  # noqa: RUF012 (a constant table)
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
    """Official MD5 of each file, as torchvision has them; the last one holds the test images."""

    @checked
    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        shape: Sequence[Count] = (3, 32, 32),
        num_classes: Count | None = 10,
        batch_size: Count = 128,
        eval_batch_size: Count = 500,
        validation_size: Count = 5000,
        seed: Seed = 0,
        mean: float = -0.053,
        std: Positive = 0.503,
        horizontal_flip: bool = True,
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
            mean,
            std,
            horizontal_flip,
            **subset,
        )
        self.data_dir = Path(data_dir).expanduser()
        self.download, self.download_timeout = download, download_timeout
        self._reason = "data.download=false" if not download else "not downloaded yet"

    @property
    def folder(self) -> Path:
        """Where the six files are expected."""
        return self.data_dir / self.directory

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        return [name for name in self.md5 if not (self.folder / name).is_file()]

    def prepare_data(self) -> None:
        """Unpack or download what is missing; failure is settled in `load`, alike on all ranks."""
        packed = self.data_dir / self.archive
        if self.missing() and self.download and not packed.is_file():
            try:
                expected = ("md5", self.archive_md5)
                download([self.address], packed, self.download_timeout, expected, packed=False)
            except (DataError, OSError) as error:
                self._reason = str(error)
        if self.missing() and packed.is_file():
            check_hash(packed, self.archive_md5, "md5")
            self._unpack(packed)

    def _unpack(self, packed: Path) -> None:
        """Write the files that are missing; nothing else of the archive is looked at."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(packed) as archive:
                for name in self.missing():
                    member = archive.extractfile(f"{self.directory}/{name}")
                    if member is None:
                        raise KeyError(f"{name} is no file")
                    write_atomically(self.folder / name, member.read())
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError) as error:
            raise DataError(f"{packed} is damaged ({error}): delete it and get it again") from error

    def load(self) -> Images:
        """Read and check the files.

        Raises:
            DataError: files that are missing or damaged.
        """
        missing = self.missing()
        if missing:
            raise DataError(
                f"CIFAR-10 is missing ({self._reason}): put {self.archive} of {self.address} into "
                f"{self.data_dir.resolve()}, or {', '.join(missing)} into {self.folder.resolve()}, "
                "or say where they are by paths.data_dir=PATH or the environment variable "
                "DIFFUSION_LAB_DATA; data=digits needs no files at all"
            )
        paths = [self.folder / name for name in self.md5]
        for path, expected in zip(paths, self.md5.values(), strict=True):
            check_hash(path, expected, "md5")
        *train, test = [read_batch(path) for path in paths]
        images, labels = (torch.cat(part) for part in zip(*train, strict=True))
        found = {path.name: sha256(path) for path in paths}
        return Images(images, labels, *test, name="cifar10", sha256=found)


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file of CIFAR-10.

    Returns:
        Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64.

    Raises:
        DataError: not what such a file holds.
    """
    try:
        with path.open("rb") as file:
            content = _Plain(file, encoding="bytes").load()
        images = torch.from_numpy(np.ascontiguousarray(content[b"data"]))
        labels = torch.tensor(content[b"labels"], dtype=torch.long)
        if images.dtype != torch.uint8 or len(images) != len(labels):
            raise ValueError(f"{images.dtype}, {len(images)} images and {len(labels)} labels")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(CIFAR10.class_names):
            raise ValueError(f"labels {int(labels.min())} to {int(labels.max())}")
        return images.view(-1, 3, 32, 32), labels
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as e:
        raise DataError(f"{path} is no file of CIFAR-10 ({e}): delete it and get it again") from e


class _Plain(pickle.Unpickler):
    """Builds arrays and plain containers; anything else in a pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name == "_reconstruct":
                return np.empty(0).__reduce__()[0]
        elif module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        elif module == "_codecs" and name == "encode":
            return _encoded  # how later versions of Python write bytes for Python 2
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encoded(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
