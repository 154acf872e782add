"""MNIST (LeCun, Cortes & Burges 1998): 60,000 training and 10,000 test digits of 28 x 28."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Unpack

import torch
from lightning.pytorch.utilities import rank_zero_only

from diffusion_lab.data.digits import embedded_digits
from diffusion_lab.data.download import check_hash
from diffusion_lab.data.idx_images import IdxImages
from diffusion_lab.data.image_module import Images
from diffusion_lab.data.in_memory import SubsetArguments
from diffusion_lab.errors import DataError
from diffusion_lab.ranges import Count, Positive, Seed, checked


class MNIST(IdxImages):
    """MNIST with checked files, a download that cannot hang, and an embedded stand-in.

    The arguments are those of `IdxImages`, and

    Args:
        when_missing: "digits" goes on with the embedded digits and says so, "error" stops. The
            stand-in uses at most 197 images for validation.
    """

    title, directory = "MNIST", "MNIST"
    addresses = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    moments = (-0.739, 0.616)
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
    packed = dict.fromkeys(sha256, "")

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
        when_missing: Literal["digits", "error"] = "digits",
        download: bool = True,
        download_timeout: Positive = 10.0,
        **subset: Unpack[SubsetArguments],
    ) -> None:
        super().__init__(
            data_dir,
            shape,
            num_classes,
            batch_size,
            eval_batch_size,
            validation_size,
            seed,
            mean,
            std,
            horizontal_flip,
            download,
            download_timeout,
            **subset,
        )
        if when_missing not in ("digits", "error"):
            raise DataError(f"when_missing={when_missing!r}: give 'digits' or 'error'")
        self.when_missing = when_missing

    def check_files(self, paths: Sequence[Path], train: torch.Size, test: torch.Size) -> None:
        """Compare with the official hashes; they were read first: "truncated" says more."""
        for path in paths:
            check_hash(path, self.sha256[path.name])

    def without_files(self) -> Images:
        """The embedded digits, announced; or the error, if that was wished."""
        if self.when_missing == "error":
            raise DataError(
                f"MNIST is missing ({self._reason}): {self.remedy()}; data=digits needs no files "
                "at all"
            )
        digits = embedded_digits()
        line = (
            f"MNIST IS MISSING: using the {len(digits.images) + len(digits.test_images):,} "
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
