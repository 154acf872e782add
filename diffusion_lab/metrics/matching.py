"""Real images of the same classes as were asked for of a model.

Classes differ in how hard they are and how much they vary, so samples of one mixture of them are
not compared with images of another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_lab.random import permutation

SETS = 5
"""How many sets at most."""


def matched_sets(labels: Tensor | None, test_labels: Tensor, count: int) -> list[Tensor]:
    """Disjoint sets of test images that are what was asked for.

    Args:
        labels: int64 ``(count,)``, the classes asked for; None for samples without a class.
        test_labels: int64 ``(M,)``.
        count: images of a set.

    Returns:
        Up to `SETS` index sets ``(count,)``, in a fixed random order; none where the test set has
        fewer images (of some class) than one set needs.
    """
    order = permutation(len(test_labels), "matched sets")
    if labels is None:
        return [part for part in order.split(count)[:SETS] if len(part) == count]
    asked = torch.bincount(labels.cpu()).tolist()
    of_class = [order[test_labels[order] == label] for label in range(len(asked))]
    possible = [len(there) // need for there, need in zip(of_class, asked, strict=True) if need]
    pairs = list(zip(of_class, asked, strict=True))
    return [
        torch.cat([there[k * need : (k + 1) * need] for there, need in pairs])
        for k in range(min(SETS, *possible))
    ]


def weights_like(labels: Tensor | None, test_labels: Tensor) -> Tensor:
    """How much each test image counts, so that their classes are mixed as those asked for.

    Args:
        labels: int64 ``(N,)``, the classes asked for; None for samples without a class.
        test_labels: int64 ``(M,)``.

    Returns:
        float64 ``(M,)``, of sum 1.

    Raises:
        ValueError: a class was asked for of which there is no test image.
    """
    if labels is None:
        return torch.full((len(test_labels),), 1 / len(test_labels), dtype=torch.float64)
    number = 1 + max(int(labels.max()), int(test_labels.max()))
    asked = torch.bincount(labels.cpu(), minlength=number).double() / len(labels)
    there = torch.bincount(test_labels, minlength=number)
    missing = ((asked > 0) & (there == 0)).nonzero().squeeze(1).tolist()
    if missing:
        raise ValueError(f"labels: classes {missing} are asked for, but no test image is of them")
    return (asked / there.clamp(min=1))[test_labels]
