r"""What a model is asked: a noisy state, its level, where to go, and under which conditions.

Guidance and label dropout are maps of conditions and use the methods of `Condition` alone, so that
a new kind of condition is one more field here and one more input of a network's conditioner.

The null condition, which a model is trained with now and then for classifier-free guidance (Ho &
Salimans, arXiv 2207.12598), is the class number K where classes are 0 .. K - 1, and zeros in the
place of a vector or an image. Networks take zeros for "nothing is known"; a vector or an image
whose zeros mean something needs a component or a channel more that is 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lab.diffusion.gaussian import Level


class Condition(NamedTuple):
    """Conditions of the rows of one batch; each is a tensor of B rows or None.

    Attributes:
        label: Class numbers, int64 (B,), K being the null class of K classes. Guidance also takes
            composed ones, (B, C), see `ClassifierFree`.
        vector: Numbers (B, D), e.g. an embedding of a text.
        image: Channels that a network sees beside its input, (B, C, *), e.g. a smaller image.
        estimate: Last x0-hat of a self-conditioning model, (B, *).
    """

    label: Tensor | None = None
    vector: Tensor | None = None
    image: Tensor | None = None
    estimate: Tensor | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for: no label, no vector and no image."""
        return self.label is None and self.vector is None and self.image is None

    def null(self, num_classes: int | None) -> Condition:
        """The same rows without their conditions; an estimate, which is none, stays.

        A label of a model without classes (`num_classes` None) is a ValueError.
        """
        label = self.label
        if label is not None:
            if num_classes is None:
                raise ValueError(
                    "a label was given, but this model was trained without classes: leave label out"
                )
            label = torch.full_like(label, num_classes)
        vector = None if self.vector is None else torch.zeros_like(self.vector)
        image = None if self.image is None else torch.zeros_like(self.image)
        return Condition(label, vector, image, self.estimate)

    def where(self, mask: Tensor, other: Condition) -> Condition:
        """These rows where `mask` (B,) is true, and the rows of `other` where it is not."""

        def chosen(ours: Tensor, theirs: Tensor) -> Tensor:
            rows = mask.to(ours.device, non_blocking=True)
            return torch.where(rows.view(-1, *[1] * (ours.ndim - 1)), ours, theirs)

        return _each(chosen, self, other)

    def rows(self, index: Tensor | slice) -> Condition:
        """Some rows, chosen as in `tensor[index]`."""
        return _each(lambda part: part[index], self)

    def to(self, device: torch.device | str) -> Condition:
        """On another device."""
        return _each(lambda part: part.to(device), self)


def joined(parts: Sequence[Condition]) -> Condition:
    """The rows of all parts in one batch."""
    return _each(lambda *same: torch.cat(same), *parts)


def _each(function: Callable[..., Tensor], *conditions: Condition) -> Condition:
    """A condition whose parts are functions of the given ones' same parts.

    A part that some have and others lack is a ValueError.
    """
    made: list[Tensor | None] = []
    for name, same in zip(Condition._fields, zip(*conditions, strict=True), strict=True):
        missing = [part is None for part in same]
        if any(missing) and not all(missing):
            raise ValueError(f"{name}: some rows of a batch have one and others have none")
        made.append(None if missing[0] else function(*same))
    return Condition(*made)


class Query(NamedTuple):
    """A question to a model: what is x0, given this noisy state?

    Attributes:
        x: State (B, *).
        at: Its noise level, of shape () or (B,); sigma > 0.
        to: Level that a sampler will move to by this one answer, for networks of two times (flow
            maps). None asks for the answer at `at` itself, whose direction an ODE solver follows.
        given: Conditions of the B rows.
    """

    x: Tensor
    at: Level
    to: Level | None = None
    given: Condition = Condition()
