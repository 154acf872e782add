"""The IDX format of MNIST: a big-endian header (type, sizes), then raw bytes.

Source: http://yann.lecun.com/exdb/mnist, "THE IDX FILE FORMAT".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion_lab.errors import DataError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> Tensor:
    """Read a file of unsigned bytes.

    Args:
        path: the expanded file.
        ndim: dimensions it must have (1 labels, 3 grey images).

    Returns:
        uint8 tensor of the shape that the header states.

    Raises:
        DataError: another format, or a length that differs from the header's.
    """
    raw = np.fromfile(path, np.uint8)
    head = 4 + 4 * ndim
    if len(raw) < head or bytes(raw[:4]) != bytes([0, 0, UNSIGNED_BYTE, ndim]):
        raise DataError(
            f"{path} is no IDX file of {ndim}-dimensional unsigned bytes "
            f"(it starts with {bytes(raw[:4]).hex() or 'nothing'}): delete it and get it again"
        )
    shape = [int(n) for n in raw[4:head].view(">i4")]
    if len(raw) - head != int(np.prod(shape)):
        raise DataError(
            f"{path} is truncated or padded: its header promises {shape}, which is "
            f"{int(np.prod(shape))} bytes, and {len(raw) - head} follow: delete it and get it again"
        )
    return torch.from_numpy(raw[head:]).view(shape)


def read_pair(images: Path, labels: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Read and check the images and labels of one split.

    Returns:
        ``(N, 1, H, W)`` uint8 and ``(N,)`` int64.

    Raises:
        DataError: damaged files, counts that differ, or labels outside ``0 .. num_classes - 1``.
    """
    x, y = read_idx(images, 3).unsqueeze(1), read_idx(labels, 1).long()
    if len(x) != len(y) or len(x) == 0:
        raise DataError(f"{images} holds {len(x)} images and {labels} {len(y)} labels")
    if int(y.max()) >= num_classes:
        raise DataError(f"{labels} holds the label {int(y.max())}: expected 0 to {num_classes - 1}")
    return x, y
