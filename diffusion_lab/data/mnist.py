"""MNIST (LeCun, Cortes & Burges 1998): 60,000 training and 10,000 test digits of 28 x 28.

The files lie where torchvision keeps them, ``<data_dir>/MNIST/raw``, and come from torchvision's
addresses; they are read here, because torchvision checks neither what it reads nor the time a
download takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from diffusion_lab.data.digits import embedded_digits
from diffusion_lab.data.files import DataError, download, expand
from diffusion_lab.data.idx import check_sha256, read_pair
from diffusion_lab.data.module import ImageDataModule, Images


class MNIST(ImageDataModule):
    """MNIST with checked files, a download that cannot hang, and an embedded stand-in.

    Args:
        data_dir: folder that holds (or will hold) ``MNIST/raw`` with the four files.
        shape: see `ImageDataModule`, as the next five.
        num_classes: 10, or null for a model without classes.
        batch_size: images a training step and process.
        eval_batch_size: images a validation or test step and process.
        validation_size: images cut from the training set; the stand-in uses at most 197.
        seed: with the epoch, decides the order of training images.
        mean: mean of the training images, scaled to [-1, 1].
        std: their standard deviation.
        when_missing: "digits" goes on with the embedded digits and says so, "error" stops.
        download: whether missing files may be fetched.
        download_timeout: seconds without an answer before a server is given up.
    """

    sha256 = {  # noqa: RUF012 (a constant table)
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    }
    """Official SHA-256 of each expanded file."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        shape: Sequence[int] = (1, 28, 28),
        num_classes: int | None = 10,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        validation_size: int = 5000,
        seed: int = 0,
        mean: float = -0.739,
        std: float = 0.616,
        when_missing: Literal["digits", "error"] = "digits",
        download: bool = True,
        download_timeout: float = 10.0,
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
        )
        if when_missing not in ("digits", "error"):
            raise ValueError(f"when_missing={when_missing!r}: give 'digits' or 'error'")
        if not download_timeout > 0:
            raise ValueError(f"download_timeout={download_timeout}: must be more than 0 seconds")
        self.data_dir = Path(data_dir).expanduser()
        self.when_missing, self.download, self.download_timeout = (
            when_missing,
            download,
            download_timeout,
        )
        self._reason = "data.download=false" if not download else "not downloaded yet"

    @property
    def folder(self) -> Path:
        """Where the four files are expected."""
        return self.data_dir / "MNIST" / "raw"

    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        return [name for name in self.sha256 if not (self.folder / name).is_file()]

    def prepare_data(self) -> None:
        """Expand or download what is missing; failure is settled in `load`, alike on all ranks."""
        for name in self.missing():
            target = self.folder / name
            packed = target.with_name(f"{name}.gz")
            try:
                if packed.is_file():
                    expand(packed, target)
                elif self.download:
                    from torchvision.datasets import MNIST as Official  # slow import, rarely needed

                    urls = [f"{mirror}{name}.gz" for mirror in Official.mirrors]
                    download(urls, target, self.download_timeout)
                else:
                    return
            except (DataError, OSError) as error:
                if packed.is_file():
                    raise
                self._reason = str(error)
                return

    def load(self) -> Images:
        """Read and check the files, or settle what happens without them."""
        if self.missing():
            return self._without_files()
        paths = [self.folder / name for name in self.sha256]
        # Reading first: "truncated" says more than "another hash".
        train, test = read_pair(*paths[:2], num_classes=10), read_pair(*paths[2:], num_classes=10)
        for path in paths:
            check_sha256(path, self.sha256[path.name])
        return Images(*train, *test, name="mnist", sha256=dict(self.sha256))

    def _without_files(self) -> Images:
        missing = ", ".join(self.missing())
        remedy = (
            f"put {missing} (or the same with .gz) into {self.folder.resolve()}, or say where they "
            "are by paths.data_dir=PATH or the environment variable DIFFUSION_LAB_DATA"
        )
        if self.when_missing == "error":
            raise DataError(
                f"MNIST is missing ({self._reason}): {remedy}; data=digits needs no files at all"
            )
        digits = embedded_digits()
        line = (
            f"MNIST IS MISSING: using the {len(digits.images) + len(digits.test_images):,} "
            f"embedded digits instead. To train on MNIST, {remedy}."
        )
        announce(line)
        # Chosen for 60,000 images, the size of the validation set may exceed the stand-in.
        self.validation_size = min(self.validation_size, 197)
        return digits._replace(fallback=line)


@rank_zero_only
def announce(line: str) -> None:
    """Print one line that cannot be overlooked, once for all processes."""
    print(f"\n>>> {line}\n", flush=True)
