"""Classes that a classifier predicts for samples: are they the requested ones, and how many?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.intervals import Jackknife, jackknife


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """Counts (K, K) of class scores (N, K); row = requested class, column = predicted class.

    Raises:
        ValueError: No samples, lengths that differ, or a label outside the classes.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    if scores.ndim != 2 or len(scores) == 0 or labels.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)}: "
            "expected (N, K) and (N,) with N of at least 1"
        )
    classes = scores.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the classifier "
            f"knows the classes 0 to {classes - 1}"
        )
    return multiclass_confusion_matrix(scores.cpu(), labels.cpu(), classes, validate_args=False)


class ClassShares(NamedTuple):
    """Outcome of `class_shares`.

    Attributes:
        shares: Of each predicted class (K,), of sum 1.
        entropy: Of the shares, in nats: 0 for one class, ln K for equal shares. It falls short of
            that of infinitely many samples by about (K - 1) / 2N (Miller 1955).
        variation: Total variation distance to the shares of the training set, 0 to 1: the share of
            samples that would have to be of another class. Not 0 for finitely many samples.
    """

    shares: Tensor
    entropy: Jackknife
    variation: Jackknife


def class_shares(predicted: Tensor, train_counts: Tensor, groups: Tensor) -> ClassShares:
    """Compare predicted classes, int64 (N,), with those of the training set, counts (K,).

    Raises:
        ValueError: A class outside 0 .. K - 1, or no training images.
    """
    classes, total = len(train_counts), train_counts.sum()
    if int(predicted.min()) < 0 or int(predicted.max()) >= classes or not total > 0:
        raise ValueError(
            f"predicted runs from {int(predicted.min())} to {int(predicted.max())}, train_counts "
            f"has {classes} classes and sum {float(total):g}: need classes in 0 .. K - 1, a sum "
            "above 0"
        )
    target = train_counts.double() / total

    def shares(chosen: Tensor) -> Tensor:
        return torch.bincount(predicted[chosen], minlength=classes).double() / len(chosen)

    return ClassShares(
        shares(torch.arange(len(predicted))),
        jackknife(lambda chosen: float(torch.special.entr(shares(chosen)).sum()), groups),
        jackknife(lambda chosen: float((shares(chosen) - target).abs().sum() / 2), groups, (0, 1)),
    )
