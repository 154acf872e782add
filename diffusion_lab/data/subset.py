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

    The samples stand in one line: first one of each class, then a second one of each, and so on,
    classes and members in an order of their own for each seed. A subset of N is the first N, so
    that it is contained in every larger one and its classes differ by one sample at most, unless
    a class has no more.

    Attributes:
        count: how many; None for all.
        exclude: classes that are left out.
        seed: decides which samples.
    """

    count: int | None
    exclude: tuple[int, ...]
    seed: int

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self.count is None and not self.exclude

    def check_classes(self, names: Sequence[str]) -> None:
        """Refuse numbers and classes that cannot be, as far as no sample is needed to tell.

        Raises:
            DataError: names the argument, its value and what is allowed.
        """
        if self.count is not None and self.count < 1:
            raise DataError(f"train_images={self.count}: must be at least 1, or null for all")
        if not self.exclude:
            return
        said = f"exclude={list(self.exclude)}"
        if not names:
            raise DataError(f"{said}: these data have no classes; leave it null")
        unknown = [label for label in self.exclude if not 0 <= label < len(names)]
        if unknown:
            raise DataError(
                f"{said}: there is no class {', '.join(map(str, unknown))}; the classes are "
                f"0 to {len(names) - 1}"
            )
        if len(set(self.exclude)) == len(names):
            raise DataError(f"{said}: all classes are left out; keep at least one")

    def of(self, labels: Tensor, candidates: Tensor) -> Tensor:
        """Those of the candidates that are chosen, in their order.

        Args:
            labels: classes of all samples ``(N,)``.
            candidates: indices of the samples that may be trained on.

        Raises:
            DataError: there are fewer than `count`.
        """
        if self.is_all:
            return candidates
        kept = candidates[~torch.isin(labels[candidates], torch.tensor([*self.exclude]).long())]
        count = len(kept) if self.count is None else self.count
        if not 1 <= count <= len(kept):
            left = " once the classes of exclude are left out" if self.exclude else ""
            raise DataError(
                f"train_images={self.count}: there are {len(kept)} training samples{left}; use at "
                f"most {len(kept)}, or null for all"
            )
        return kept[self._line(labels[kept])[:count].sort().values]

    def _line(self, labels: Tensor) -> Tensor:
        """Positions of all samples in the order in which they are taken."""
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
        return {"train_images": self.count, "exclude": list(self.exclude), "seed": self.seed}
