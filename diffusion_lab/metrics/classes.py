"""Which classes a model without classes draws, as a classifier reads them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.metrics.intervals import Jackknife, jackknife


class Classes(NamedTuple):
    """Outcome of `classes`.

    Attributes:
        shares: of each class ``(K,)``, of sum 1.
        entropy: of the shares, in nats: 0 for one class, ln K for all alike. Falls short of that
            of endlessly many samples by about (K - 1) / 2N (Miller 1955).
        variation: total variation distance to the training set's shares, 0 to 1: the share of
            samples that would have to be of another class. Not 0 for finitely many samples.
    """

    shares: Tensor
    entropy: Jackknife
    variation: Jackknife


def classes(read: Tensor, wanted: Tensor, groups: Tensor) -> Classes:
    """Compare the classes read with those of the training set.

    Args:
        read: int64 ``(N,)``, the class of each sample, in ``0 .. K - 1``.
        wanted: ``(K,)``, number or share of training images of each class.
        groups: int64 ``(N,)``, see `intervals.deal`.

    Raises:
        ValueError: a class outside ``0 .. K - 1``, or no training images.
    """
    if int(read.min()) < 0 or int(read.max()) >= len(wanted) or not wanted.sum() > 0:
        raise ValueError(
            f"read runs from {int(read.min())} to {int(read.max())}, wanted has {len(wanted)} "
            f"classes and sum {float(wanted.sum()):g}: need classes in 0 .. K - 1, a sum above 0"
        )
    target = wanted.double() / wanted.sum()

    def shares(kept: Tensor) -> Tensor:
        return torch.bincount(read[kept], minlength=len(wanted)).double() / len(kept)

    return Classes(
        shares(torch.arange(len(read))),
        jackknife(lambda kept: float(torch.special.entr(shares(kept)).sum()), groups),
        jackknife(lambda kept: float((shares(kept) - target).abs().sum() / 2), groups, (0, 1)),
    )
