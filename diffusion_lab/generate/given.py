"""Conditions of each image that is drawn."""

from __future__ import annotations

import torch

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.generate.labels import Label, expand_labels


def expand_given(
    label: Label, given: Condition | None, num_samples: int, num_classes: int | None
) -> Condition:
    """The conditions of each of `num_samples` images, on the CPU.

    Args:
        label: See `expand_labels`.
        given: Further conditions, whose rows are repeated from their start until all images have
            one; their numbers may differ. None for none.
        num_samples: Images, at least 1.
        num_classes: Classes of the model; None where it was trained without.

    Raises:
        ValueError: Two labels, a condition without rows, or a label that `expand_labels` refuses.
    """
    given = Condition() if given is None else given
    if label is not None and given.label is not None:
        raise ValueError(f"label={label!r}: given has a label too; leave one of them out")
    labels = expand_labels(given.label if label is None else label, num_samples, num_classes)
    return repeated(given._replace(label=None), num_samples)._replace(label=labels)


def repeated(given: Condition, count: int) -> Condition:
    """Conditions whose rows are repeated from their start until there are `count`; on the CPU.

    Raises:
        ValueError: One without rows.
    """
    if any(part is not None and not len(part) for part in given):
        raise ValueError("given: a condition needs at least one row")
    return Condition(
        *(p if p is None else p.detach().cpu()[torch.arange(count) % len(p)] for p in given)
    )
