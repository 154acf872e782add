"""A folder of images of any size as a data set.

Its layout is one of these, `root` being the folder:

* `root/<class>/**/x.png`: each sub-folder is a class;
* `root/x.png`: no classes;
* either of them under `root/train` and `root/test` (or `root/val`), which define the split;
* the second with CelebA's `list_eval_partition.txt` in or above it, which defines the split.

Hidden files and folders are ignored, and so are files whose ending is not in `IMAGE_ENDINGS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from diffusion_lab.data.data_module import ImageDataModule, Splits
from diffusion_lab.data.decoding import decoded
from diffusion_lab.errors import DataError
from diffusion_lab.files import user_cache_dir
from diffusion_lab.random import permutation
from diffusion_lab.ranges import Count, checked

PIXELS_FORMAT = 2
"""Raised when the same files give other pixels, so that cached ones are decoded anew."""
MOST_VALIDATION = 5000
"""Images cut for validation where no number is given; fewer if that is more than a tenth."""
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Of image files, in small or capital letters."""
PARTITION = "list_eval_partition.txt"
"""CelebA's split: a line an image, its name and 0 (training), 1 (validation) or 2 (test)."""
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""Folders that hold test images beside `train`; the first that is there counts."""


@checked
@dataclass(kw_only=True, eq=False)
class ImageFolder(ImageDataModule):
    """Images in a folder, resized once and held in memory as bytes."""

    folder: str | os.PathLike[str] = field(kw_only=False)
    shape: Sequence[Count] = (3, 64, 64)
    crop: Count | None = None
    num_classes: Count | None = None
    test_share: Annotated[float, Gt(0), Lt(1)] = 0.1
    validation_size: Count | None = None  # type: ignore[assignment]  # a number once it is read
    cache: str | os.PathLike[str] | None = None

    original = None
    moments = (0.0, 0.5)

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(self.folder).expanduser()

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
            DataError: No images, an unknown layout, or other classes than `num_classes` says.
        """
        listing = list_images(self.root)
        names = listing.class_names
        if self.num_classes not in (None, len(names)):
            there = (
                f"{len(names)} sub-folders with images" if names else "no sub-folders of classes"
            )
            raise DataError(
                f"data.num_classes={self.num_classes}: data.folder={self.folder} has {there}; give "
                f"data.num_classes={len(names) or 'null'}"
            )
        return listing

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the sub-folders, by label; empty where the images have no classes."""
        return self.listing.class_names

    def prepare_data(self) -> None:
        """Decode and cache the images, so that other processes need not."""
        self._pixels()

    def _pixels(self) -> tuple[Tensor, str]:
        files, settings = self.listing.files, f"{PIXELS_FORMAT} {self.shape} {self.crop}"
        name = f"images-{_fingerprint(self.root, files, settings)[:16]}.bin"
        cache = Path(self.cache or user_cache_dir()).expanduser()
        return decoded(files, self.shape, self.crop, cache / name)

    def load(self) -> Splits:
        """Read the images and split them."""
        images, sha256 = self._pixels()
        labels = torch.tensor(self.listing.labels).clamp_min(0)
        test = self._held_out(labels)
        train = ~test
        if self.validation_size is None:
            self.validation_size = max(1, min(MOST_VALIDATION, int(train.sum()) // 10))
        return Splits(
            images[train],
            labels[train],
            images[test],
            labels[test],
            name=self.root.resolve().name or "folder",
            sha256={f"pixels of {len(images)} images": sha256},
        )

    def _held_out(self, labels: Tensor) -> Tensor:
        """Which images are for testing, bool `(N,)`; a share of each class without a split."""
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


class Listing(NamedTuple):
    """The images of a folder, sorted by name.

    Attributes:
        files: Their paths.
        labels: The class of each, -1 without classes.
        is_test: Whether each is held out by the folder's own split; None where it has none.
        class_names: Sorted; empty without classes.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    is_test: tuple[bool, ...] | None
    class_names: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """Find the images of a folder.

    Raises:
        DataError: No folder, no images, or an unknown layout.
    """
    if not root.is_dir():
        raise DataError(f"data.folder={root}: there is no such folder; name one with images in it")
    parts = _split_folders(root)
    if parts is None:
        alone = root / "train"
        files, names, labels = _list_classes(alone if alone.is_dir() else root)
        return Listing(files, labels, _celeba_is_test(root, files) if not names else None, names)
    (train, names, labels), (test, test_names, test_labels) = map(_list_classes, parts)
    if names != test_names:
        raise DataError(
            f"data.folder={root}: {parts[0].name} has the classes {_few(names)}, {parts[1].name} "
            f"has {_few(test_names)}; both must have the same sub-folders"
        )
    is_test = (False,) * len(train) + (True,) * len(test)
    return Listing(train + test, labels + test_labels, is_test, names)


def _fingerprint(root: Path, files: Sequence[Path], settings: str) -> str:
    """SHA-256 of names, sizes and times of change of files, and of a description."""
    digest = hashlib.sha256(settings.encode())
    for file in files:
        status = file.stat()
        name = file.relative_to(root).as_posix()
        digest.update(f"\n{name}\t{status.st_size}\t{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _split_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and of test images, if the folder is split."""
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    return (root / "train", test) if (root / "train").is_dir() and test is not None else None


def _list_classes(root: Path) -> tuple[tuple[Path, ...], tuple[str, ...], tuple[int, ...]]:
    """Files, class names (sorted; () of unlabelled images) and a label per file (-1: none)."""
    flat = tuple(file for file in _entries(root) if _is_image(file))
    found = {entry.name: tuple(_below(entry)) for entry in _entries(root) if entry.is_dir()}
    classes = {name: files for name, files in found.items() if files}
    if flat and classes:
        raise DataError(
            f"data.folder={root}: images lie both in it ({flat[0].name}) and in sub-folders "
            f"({_few(tuple(classes))}); put all into sub-folders, one per class, or none"
        )
    if not flat and not classes:
        raise DataError(
            f"data.folder={root}: there are no images in it or its sub-folders (files that end in "
            f"{', '.join(IMAGE_ENDINGS)})"
        )
    if flat:
        return flat, (), (-1,) * len(flat)
    names = tuple(classes)
    labels = tuple(label for label, name in enumerate(names) for _ in classes[name])
    return tuple(file for name in names for file in classes[name]), names, labels


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_ENDINGS and file.is_file()


def _below(folder: Path) -> Iterator[Path]:
    """All images under a folder, by name."""
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_image(Path(where, name)):
                yield Path(where, name)


def _celeba_is_test(root: Path, files: Sequence[Path]) -> tuple[bool, ...] | None:
    """Whether each file is a test image by CelebA's own list; None without that list."""
    path = next((p for p in (root / PARTITION, root.parent / PARTITION) if p.is_file()), None)
    if path is None:
        return None
    part = dict(line.split() for line in path.read_text().splitlines() if len(line.split()) == 2)
    missing = [file.name for file in files if part.get(file.name) not in ("0", "1", "2")]
    if missing:
        raise DataError(
            f"{path} gives no part (0, 1 or 2) for {len(missing)} of {len(files)} images, e.g. "
            f"{missing[0]}: download it again, or remove it for a random split"
        )
    return tuple(part[file.name] == "2" for file in files)


def _few(names: Sequence[str]) -> str:
    """The first names, as a list that does not grow long."""
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    )
