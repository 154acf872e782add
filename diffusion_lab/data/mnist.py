"""MNIST and the sets in its format: four files of 60,000 training and 10,000 test images, 28 x 28.

The format is IDX: a big-endian header (type, sizes), then raw bytes
(http://yann.lecun.com/exdb/mnist, "THE IDX FILE FORMAT").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchvision.datasets.mnist import (  # type: ignore[import-untyped]
    read_image_file,
    read_label_file,
)

from diffusion_lab.data.data_module import Splits
from diffusion_lab.data.digits import embedded_digits
from diffusion_lab.data.download import DownloadedImages, check_hash, expand
from diffusion_lab.errors import DataError
from diffusion_lab.files import sha256
from diffusion_lab.ranges import checked

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _by_name(*hashes: str) -> dict[str, str]:
    return dict(zip(IDX_FILES, hashes, strict=True))


class IdxImages(DownloadedImages):
    """Base of the sets in MNIST's format: a new one states the constants below."""

    names = IDX_FILES
    original: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    addresses: ClassVar[tuple[str, ...]]
    """Addresses in front of a packed file's name, tried in turn."""
    packed: ClassVar[dict[str, str]] = {}
    """File name -> SHA-256 of the packed file as tensorflow-datasets records it, where it does."""
    sha256: ClassVar[dict[str, str]] = {}
    """File name -> official SHA-256 of the expanded file; without it, its sizes are checked."""
    counts: ClassVar[tuple[int, int]] = (60_000, 10_000)
    """How many training and test images there are."""

    @property
    def folder(self) -> Path:
        """Where the four files are expected."""
        return super().folder / "raw"

    def wanted(self) -> str:
        """Which files belong in which folder, as a clause."""
        return (
            f"{', '.join(self.missing())} (or the same with .gz) from "
            f"{' or '.join(self.addresses)} into {self.folder.resolve()}"
        )

    def prepare_data(self) -> None:
        """Expand or download what is missing."""
        for name in self.missing():
            target, expected = self.folder / name, self.packed.get(name)
            archive = target.with_name(f"{name}.gz")
            if archive.is_file():
                if expected:
                    check_hash(archive, expected)
                expand(archive, target)
                continue
            urls = [f"{mirror}{archive.name}" for mirror in self.addresses]
            known = ("sha256", expected) if expected else None
            if not self._download(urls, target, known, packed=True):
                return

    def read_files(self) -> Splits:
        """Read first, compare hashes then: "truncated" says more than another hash."""
        paths = [self.folder / name for name in self.names]
        train, test = self._read_pair(*paths[:2]), self._read_pair(*paths[2:])
        for path in paths:
            if path.name in self.sha256:
                check_hash(path, self.sha256[path.name])
        for path, (images, _), count in zip(paths[::2], (train, test), self.counts, strict=True):
            official = (count, *self.original)
            if path.name not in self.sha256 and images.shape != official:
                raise DataError(
                    f"{path} holds images of {list(images.shape)}, {self.title} has "
                    f"{list(official)}: delete it and get it again"
                )
        hashes = {path.name: sha256(path) for path in paths}
        return Splits(*train, *test, name=self.directory.lower(), sha256=hashes)

    def _read_pair(self, images: Path, labels: Path) -> tuple[Tensor, Tensor]:
        """The images `(N, 1, H, W)` and labels `(N,)` of one split."""
        x, y = _read_idx(read_image_file, images).unsqueeze(1), _read_idx(read_label_file, labels)
        if len(x) != len(y):
            raise DataError(f"{images} holds {len(x)} images and {labels} {len(y)} labels")
        most = len(self.class_names) - 1
        if int(y.max()) > most:
            raise DataError(f"{labels} holds the label {int(y.max())}: expected 0 to {most}")
        return x, y


def _read_idx(reader: Callable[[str], Tensor], path: Path) -> Tensor:
    try:
        return reader(str(path))
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is damaged or no IDX file of {reader.__name__.split('_')[1]}s "
            f"({error or type(error).__name__}): delete it and get it again"
        ) from error


@checked
@dataclass(kw_only=True, eq=False)
class MNIST(IdxImages):
    """MNIST (LeCun, Cortes & Burges 1998): handwritten digits, with an embedded stand-in.

    The stand-in uses at most 197 images for validation.
    """

    when_missing: Literal["digits", "error"] = "digits"

    title = directory = "MNIST"
    addresses = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    sha256 = _by_name(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    )

    def without_files(self) -> Splits:
        """The embedded digits, announced; or the error, if `when_missing` asks for it."""
        if self.when_missing == "error":
            return super().without_files()
        digits = embedded_digits()
        line = (
            f"MNIST IS MISSING: using the {len(digits.labels) + len(digits.test_labels):,} "
            f"embedded digits instead. To train on MNIST, {self.remedy()}."
        )
        announce(line)
        # Chosen for 60,000 images, the size of the validation set may exceed the stand-in.
        self.validation_size = min(self.validation_size, 197)
        return digits._replace(fallback=line)


@rank_zero_only
def announce(line: str) -> None:
    """Print one line that cannot be overlooked, once for all processes."""
    print(f"\n>>> {line}\n", flush=True)


class FashionMNIST(IdxImages):
    """Ten kinds of clothes on black (Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747)."""

    class_names = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
        "ankle boot",
    )  # fmt: skip
    title, directory = "Fashion-MNIST", "FashionMNIST"
    addresses = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    moments = (-0.428, 0.706)  # 0.2860 and 0.3530 in [0, 1]
    packed = _by_name(
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    )


class KMNIST(IdxImages):
    """Ten hiragana, one of each row of the syllabary (Clanuwat et al. 2018, arXiv 1812.01718)."""

    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    title = directory = "KMNIST"
    addresses = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
    moments = (-0.616, 0.697)  # 0.1918 and 0.3483 in [0, 1]
    packed = _by_name(
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    )
