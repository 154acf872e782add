"""How often a classifier reads a sample as the class that was asked for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Agreement(NamedTuple):
    """Outcome of `agreement`.

    Attributes:
        overall: share of all samples read as asked, 0 to 1.
        per_class: the same for each class ``(K,)``; nan where no sample of it was asked for.
        confusion: counts ``(K, K)``, row = asked, column = read.
    """

    overall: float
    per_class: Tensor
    confusion: Tensor


def agreement(scores: Tensor, labels: Tensor) -> Agreement:
    """Compare class scores with the classes asked for.

    Args:
        scores: ``(N, K)``, the classifier's score of each class.
        labels: int64 ``(N,)``, the class asked for, in ``0 .. K - 1``.

    Raises:
        ValueError: no samples, lengths that differ, or a label outside the classes.
    """
    classes = scores.shape[-1]
    if scores.ndim != 2 or len(scores) == 0 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)}: "
            "expected (N, K) and (N,) with N of at least 1"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the classifier "
            f"knows the classes 0 to {classes - 1}"
        )
    pairs = labels.cpu() * classes + scores.argmax(1).cpu()
    confusion = torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
    right = confusion.diagonal()
    return Agreement(
        overall=int(right.sum()) / len(labels),
        per_class=right / confusion.sum(1),  # 0 / 0 = nan marks a class not asked for
        confusion=confusion,
    )
