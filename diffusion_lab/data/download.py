"""Checked files: hashes with a cache, and a download that cannot hang."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Literal

from diffusion_lab.errors import DataError
from diffusion_lab.files import md5, sha256, write_atomically

CHUNK = 1 << 20
SLOWEST = 1024  # bytes a second below which a download counts as stalled


def check_hash(path: Path, expected: str, kind: Literal["sha256", "md5"] = "sha256") -> None:
    """Compare a file with its known hash.

    Raises:
        DataError: it differs; names the file, both hashes and the remedy.
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
    """Fetch a file from the first mirror that answers and write it to ``target``.

    Args:
        urls: mirrors of one file, tried in turn.
        target: where the file goes; its folder is made.
        timeout: seconds without an answer, or of a stalled transfer, before giving up on a mirror.
        expected: kind ("sha256" or "md5") and value of the hash of the file as it is sent; None for
            an unknown one.
        packed: it is sent as gzip and written expanded.

    Raises:
        DataError: no mirror delivered, or the folder cannot be written; names each reason.
    """
    reasons = []
    for url in urls:
        try:
            with tempfile.TemporaryFile() as sent:
                _fetch(url, sent, timeout)
                if expected is not None:
                    _check_sent(sent, *expected)
                sent.seek(0)
                target.parent.mkdir(parents=True, exist_ok=True)
                with gzip.open(sent) if packed else nullcontext(sent) as content:
                    write_atomically(target, content.read())
            return
        except (OSError, EOFError, urllib.error.URLError, ValueError) as error:
            reasons.append(f"{url}: {error or type(error).__name__}")
    raise DataError(f"{target.name} could not be downloaded ({'; '.join(reasons)})")


def _check_sent(sent: IO[bytes], kind: str, expected: str) -> None:
    sent.seek(0)
    found = hashlib.new(kind, sent.read()).hexdigest()
    if found != expected:
        raise ValueError(f"what was sent has the {kind} {found}, expected {expected}")


def _fetch(url: str, file: IO[bytes], timeout: float) -> None:
    from rich.progress import Progress  # here, since most runs download nothing

    request = urllib.request.Request(url, headers={"User-Agent": "diffusion_lab"})
    with urllib.request.urlopen(request, timeout=timeout) as response, Progress() as bar:
        size = response.headers.get("Content-Length")
        task = bar.add_task(url.rsplit("/", 1)[-1], total=int(size) if size else None)
        start, received = time.monotonic(), 0
        while chunk := response.read1(CHUNK):
            file.write(chunk)
            received += len(chunk)
            bar.update(task, completed=received)
            elapsed = time.monotonic() - start
            if elapsed > timeout and received < SLOWEST * elapsed:
                raise TimeoutError(f"only {received} bytes in {elapsed:.0f} s")
        if size and received != int(size):
            raise OSError(f"the connection broke off after {received} of {size} bytes")


def expand(packed: Path, target: Path) -> None:
    """Expand a local gzip file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with gzip.open(packed) as source, tempfile.TemporaryFile() as buffer:
            shutil.copyfileobj(source, buffer)
            buffer.seek(0)
            write_atomically(target, buffer.read())
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{packed} is damaged ({error}): delete it and get it again") from error
