"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test colour photographs of 32 x 32.

The files are Python pickles, in `<data_dir>/cifar-10-batches-py` as torchvision keeps them, or
in the archive beside that folder. A pickle can run any code, so each file is compared with its
official MD5 first, and read by an unpickler that builds arrays and plain containers alone.
"""

from __future__ import annotations

import gzip
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.data.data_module import Splits
from diffusion_lab.data.download import DownloadedImages, check_hash
from diffusion_lab.errors import DataError
from diffusion_lab.files import sha256, write_atomically
from diffusion_lab.ranges import Count, checked


@checked
@dataclass(kw_only=True, eq=False)
class CIFAR10(DownloadedImages):
    """CIFAR-10; larger images than 32 x 32 are padded with black."""

    shape: Sequence[Count] = (3, 32, 32)
    horizontal_flip: bool = True

    title = "CIFAR-10"
    class_names = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    original = (3, 32, 32)
    moments = (-0.053, 0.503)
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

    names = tuple(md5)

    def wanted(self) -> str:
        """Which files belong in which folder, as a clause."""
        return (
            f"{self.archive} from {self.address} into {self.root.resolve()}, or "
            f"{', '.join(self.missing())} into {self.folder.resolve()}"
        )

    def prepare_data(self) -> None:
        """Unpack or download what is missing."""
        archive = self.root / self.archive
        if self.missing() and not archive.is_file():
            self._download([self.address], archive, ("md5", self.archive_md5), packed=False)
        if self.missing() and archive.is_file():
            check_hash(archive, self.archive_md5, "md5")
            self._unpack(archive)

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

    def read_files(self) -> Splits:
        """Compare all files with their hashes, then read them."""
        paths = [self.folder / name for name in self.md5]
        for path, expected in zip(paths, self.md5.values(), strict=True):
            check_hash(path, expected, "md5")
        *train, test = [read_batch(path) for path in paths]
        images, labels = (torch.cat(part) for part in zip(*train, strict=True))
        hashes = {path.name: sha256(path) for path in paths}
        return Splits(images, labels, *test, name="cifar10", sha256=hashes)


def read_batch(path: Path) -> tuple[Tensor, Tensor]:
    """Read one file of CIFAR-10.

    Returns:
        Images `(N, 3, 32, 32)` uint8 and labels `(N,)` int64.

    Raises:
        DataError: Not what such a file holds.
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
