"""Which samples of a training set are trained on: a number of them, or all but some classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_lab.errors import DataError
from diffusion_lab.random import permutation


class Subset(NamedTuple):
    """A choice among training samples, a function of the seed and of the samples' classes.

    The samples are ranked: first one of each class, then a second one of each, and so on; the seed
    permutes classes and members. A subset of N is the first N. So every larger subset contains it,
    and class sizes differ by one at most, unless a class has no more samples.

    Attributes:
        size: How many samples; None for all.
        exclude: Classes to leave out.
        seed: Decides which samples.
    """

    size: int | None
    exclude: tuple[int, ...]
    seed: int

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.size is None and not self.exclude

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse classes to leave out that the data do not have.

        Raises:
            DataError: Names the argument, its value and what is allowed.
        """
        if not self.exclude:
            return
        given = f"exclude={list(self.exclude)}"
        if not names:
            raise DataError(f"{given}: these data have no classes; leave it null")
        unknown = [label for label in self.exclude if not 0 <= label < len(names)]
        if unknown:
            raise DataError(
                f"{given}: there is no class {', '.join(map(str, unknown))}; the classes are "
                f"0 to {len(names) - 1}"
            )
        if len(set(self.exclude)) == len(names):
            raise DataError(f"{given}: all classes are left out; keep at least one")

    def of(self, labels: Tensor, candidates: Tensor) -> Tensor:
        """The chosen candidates, in their order.

        Args:
            labels: Classes of all samples `(N,)`.
            candidates: Indices of the samples that may be trained on.

        Raises:
            DataError: There are fewer than `size`.
        """
        if self.is_all:
            return candidates
        allowed = candidates[~torch.isin(labels[candidates], torch.tensor([*self.exclude]).long())]
        count = len(allowed) if self.size is None else self.size
        if not 1 <= count <= len(allowed):
            without = " once the classes of exclude are left out" if self.exclude else ""
            raise DataError(
                f"train_images={self.size}: there are {len(allowed)} training samples{without}; "
                f"use at most {len(allowed)}, or null for all"
            )
        return allowed[self._ranked(labels[allowed])[:count].sort().values]

    def _ranked(self, labels: Tensor) -> Tensor:
        """Positions of all samples, first to be chosen first."""
        order = permutation(len(labels), "training subset", self.seed)
        classes = labels.unique().tolist()
        turns = permutation(len(classes), "classes of the training subset", self.seed).tolist()
        place = torch.empty(len(labels), dtype=torch.long)
        for turn, label in zip(turns, classes, strict=True):
            members = order[labels[order] == label]
            place[members] = torch.arange(len(members)) * len(classes) + turn
        return place.argsort()

    def sha256(self, chosen: Tensor) -> str:
        """Hash of the indices of the chosen samples."""
        return hashlib.sha256(chosen.sort().values.long().numpy().tobytes()).hexdigest()

    def record(self) -> dict[str, Any]:
        """What was asked for, as plain data."""
        return {"train_images": self.size, "exclude": list(self.exclude), "seed": self.seed}
