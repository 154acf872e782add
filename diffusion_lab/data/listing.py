"""Which images lie in a folder, of which class, and which of them are for testing.

Layouts that are understood, `root` being the folder named:

* ``root/<class>/**/x.png``: a class a sub-folder;
* ``root/x.png``: no classes;
* either of them under ``root/train`` and ``root/test`` (or ``root/val``), which is then the split;
* the second with CelebA's ``list_eval_partition.txt`` in or above it, which is then the split.

Hidden files and folders are left out, and so is what has another ending than `ENDINGS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffusion_lab.errors import DataError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Of image files, in small or capital letters."""
PARTITION = "list_eval_partition.txt"
"""CelebA's split: a line an image, its name and 0 (training), 1 (validation) or 2 (test)."""
TESTS = ("test", "val", "valid", "validation")
"""Folders that hold test images beside `train`; the first that is there counts."""


class Listing(NamedTuple):
    """The images of a folder, sorted by name.

    Attributes:
        files: their paths.
        labels: the class of each, -1 without classes.
        is_test: whether each is held out by the folder's own split; None where it has none.
        class_names: names of the classes, sorted; empty without classes.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...]
    is_test: tuple[bool, ...] | None
    class_names: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """Find the images of a folder.

    Raises:
        DataError: no folder, no images, or images that lie in no layout understood.
    """
    if not root.is_dir():
        raise DataError(f"data.folder={root}: there is no such folder; name one with images in it")
    parts = _split_folders(root)
    if parts is None:
        alone = root / "train"
        files, names, labels = _part(alone if alone.is_dir() else root)
        return Listing(files, labels, _partition(root, files) if not names else None, names)
    (train, names, labels), (test, test_names, test_labels) = map(_part, parts)
    if names != test_names:
        raise DataError(
            f"data.folder={root}: {parts[0].name} has the classes {_few(names)}, {parts[1].name} "
            f"has {_few(test_names)}; both must have the same sub-folders"
        )
    is_test = (False,) * len(train) + (True,) * len(test)
    return Listing(train + test, labels + test_labels, is_test, names)


def fingerprint(root: Path, files: Sequence[Path], said: str) -> str:
    """SHA-256 of names, sizes and times of change of files, and of a description."""
    digest = hashlib.sha256(said.encode())
    for file in files:
        status = file.stat()
        name = file.relative_to(root).as_posix()
        digest.update(f"\n{name}\t{status.st_size}\t{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _split_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of training and of test images, if the folder is split."""
    test = next((root / name for name in TESTS if (root / name).is_dir()), None)
    return (root / "train", test) if (root / "train").is_dir() and test is not None else None


def _part(root: Path) -> tuple[tuple[Path, ...], tuple[str, ...], tuple[int, ...]]:
    """Images, classes and the label of each image, of a folder without a split."""
    flat = tuple(file for file in _entries(root) if _is_image(file))
    found = {entry.name: tuple(_below(entry)) for entry in _entries(root) if entry.is_dir()}
    classes = {name: files for name, files in found.items() if files}
    if flat and classes:
        raise DataError(
            f"data.folder={root}: images lie both in it ({flat[0].name}) and in sub-folders "
            f"({_few(tuple(classes))}); put all into sub-folders, one a class, or all beside each "
            "other"
        )
    if not flat and not classes:
        raise DataError(
            f"data.folder={root}: there are no images in it or its sub-folders (files that end in "
            f"{', '.join(ENDINGS)})"
        )
    if flat:
        return flat, (), (-1,) * len(flat)
    names = tuple(classes)
    labels = tuple(label for label, name in enumerate(names) for _ in classes[name])
    return tuple(file for name in names for file in classes[name]), names, labels


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in ENDINGS and file.is_file()


def _below(folder: Path) -> Iterator[Path]:
    """All images under a folder, by name."""
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_image(Path(where, name)):
                yield Path(where, name)


def _partition(root: Path, files: Sequence[Path]) -> tuple[bool, ...] | None:
    """CelebA's own split of images that lie flat, if its file is there."""
    path = next((p for p in (root / PARTITION, root.parent / PARTITION) if p.is_file()), None)
    if path is None:
        return None
    part = dict(line.split() for line in path.read_text().splitlines() if len(line.split()) == 2)
    missing = [file.name for file in files if part.get(file.name) not in ("0", "1", "2")]
    if missing:
        raise DataError(
            f"{path} tells the part (0, 1 or 2) of all but {len(missing)} of {len(files)} images, "
            f"among these {missing[0]}: get it again, or move it away for a split at random"
        )
    return tuple(part[file.name] == "2" for file in files)


def _few(names: Sequence[str]) -> str:
    """The first names, as a list that does not grow long."""
    return (
        ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
    )
