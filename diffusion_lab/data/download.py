"""Image sets in official files: layout, hashes, and a download that cannot hang.

Layout and addresses are torchvision's. Its downloads can hang and its readers check no hash, so
both are done here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import time
import urllib.request
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from diffusion_lab.data.data_module import ImageDataModule, Splits
from diffusion_lab.errors import DataError
from diffusion_lab.files import md5, sha256, write_atomically
from diffusion_lab.ranges import Positive, checked

READ_AT_ONCE = 1 << 20
SLOWEST = 1024
"""Bytes a second below which a download counts as stalled."""


@checked
@dataclass(kw_only=True, eq=False)
class DownloadedImages(ImageDataModule):
    """Base of the sets that are read from official files, downloaded where they are missing."""

    data_dir: str | os.PathLike[str] = field(kw_only=False)
    download: bool = True
    download_timeout: Positive = 10.0

    title: ClassVar[str]
    """What messages call the set."""
    directory: ClassVar[str]
    """Folder of the files in `data_dir`."""
    names: ClassVar[tuple[str, ...]]
    """Names of the files."""

    _failure = "not downloaded yet"

    @property
    def root(self) -> Path:
        """`data_dir` with ~ expanded; `folder` below it has this set's files."""
        return Path(self.data_dir).expanduser()

    @property
    def folder(self) -> Path:
        """Where the files are expected."""
        return self.root / self.directory

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        return [name for name in self.names if not (self.folder / name).is_file()]

    def _download(
        self, urls: Sequence[str], target: Path, expected: tuple[str, str] | None, packed: bool
    ) -> bool:
        """Whether a file was downloaded; if not, `load` gives the reason, alike on all ranks."""
        if self.download:
            try:
                download(urls, target, self.download_timeout, expected, packed)
                return True
            except (DataError, OSError) as error:
                self._failure = str(error)
        return False

    def load(self) -> Splits:
        """Read and check the files, or settle what happens without them."""
        return self.without_files() if self.missing() else self.read_files()

    @abstractmethod
    def read_files(self) -> Splits:
        """Read and check the files, all of which are there."""

    def without_files(self) -> Splits:
        """What happens where files are missing: here an error; a set with a stand-in returns it.

        Raises:
            DataError: Names the files, their folder, the addresses and the remedy.
        """
        reason = self._failure if self.download else "data.download=false"
        raise DataError(
            f"{self.title} is missing ({reason}): {self.remedy()}; data=digits needs no "
            "files at all"
        )

    @abstractmethod
    def wanted(self) -> str:
        """Which files belong in which folder, as a clause."""

    def remedy(self) -> str:
        """What to do about missing files, as a clause."""
        return (
            f"put {self.wanted()}, or say where they are by paths.data_dir=PATH or the environment "
            "variable DIFFUSION_LAB_DATA"
        )


def check_hash(path: Path, expected: str, kind: Literal["sha256", "md5"] = "sha256") -> None:
    """Compare a file with its known hash.

    Raises:
        DataError: It differs; names the file, both hashes and the remedy.
    """
    found = sha256(path) if kind == "sha256" else md5(path)
    if found != expected:
        title = "SHA-256" if kind == "sha256" else "MD5"
        raise DataError(
            f"{path} is not the official file: its {title} is {found}, expected {expected}: "
            "delete it and get it again"
        )


def download(
    urls: Sequence[str],
    target: Path,
    timeout: float,
    expected: tuple[str, str] | None = None,
    packed: bool = True,
) -> None:
    """Fetch a file from the first mirror that answers and write it to `target`.

    Args:
        urls: Mirrors of one file, tried in turn.
        target: Where the file goes; its folder is made.
        timeout: Seconds without an answer, or of a stalled transfer, before giving up on a mirror.
        expected: Kind ("sha256" or "md5") and value of the hash of the file as it is sent; None for
            an unknown one.
        packed: It is sent as gzip and written expanded.

    Raises:
        DataError: No mirror delivered, or the folder cannot be written; names each reason.
    """
    reasons = []
    for url in urls:
        try:
            sent = _fetch(url, timeout)
            if expected is not None:
                _check_sent(sent, *expected)
            write_atomically(target, gzip.decompress(sent) if packed else sent)
            return
        except (OSError, EOFError, zlib.error, ValueError) as error:
            reasons.append(f"{url}: {error or type(error).__name__}")
    raise DataError(f"{target.name} could not be downloaded ({'; '.join(reasons)})")


def _check_sent(sent: bytes, kind: str, expected: str) -> None:
    found = hashlib.new(kind, sent).hexdigest()
    if found != expected:
        raise ValueError(f"what was sent has the {kind} {found}, expected {expected}")


def _fetch(url: str, timeout: float) -> bytes:
    from rich.progress import Progress  # here, since most runs download nothing

    request = urllib.request.Request(url, headers={"User-Agent": "diffusion_lab"})
    with urllib.request.urlopen(request, timeout=timeout) as response, Progress() as bar:
        size = response.headers.get("Content-Length")
        task = bar.add_task(url.rsplit("/", 1)[-1], total=int(size) if size else None)
        start, received = time.monotonic(), bytearray()
        while chunk := response.read1(READ_AT_ONCE):
            received += chunk
            bar.update(task, completed=len(received))
            elapsed = time.monotonic() - start
            if elapsed > timeout and len(received) < SLOWEST * elapsed:
                raise TimeoutError(f"only {len(received)} bytes in {elapsed:.0f} s")
        if size and len(received) != int(size):
            raise OSError(f"the connection broke off after {len(received)} of {size} bytes")
    return bytes(received)


def expand(packed: Path, target: Path) -> None:
    """Expand a local gzip file.

    Raises:
        DataError: The file is damaged.
    """
    try:
        write_atomically(target, gzip.decompress(packed.read_bytes()))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{packed} is damaged ({error}): delete it and get it again") from error
