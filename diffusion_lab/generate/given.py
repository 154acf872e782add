"""Conditions of each image that is drawn: from what a program gives, and from what a user types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition
from diffusion_lab.diffusion.objectives import Batch
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


def taken(denoiser: Mapping[str, Any]) -> tuple[int | None, int] | None:
    """Numbers of a condition vector and channels of a condition image that a network takes.

    Args:
        denoiser: The network's node in a stored configuration.

    Returns:
        (D or None, channels or 0); None where the node does not tell, as of another library.
    """
    conditions = denoiser.get("conditions")
    if conditions is None:
        ours = str(denoiser.get("_target_")).startswith("diffusion_lab.")
        return (None, 0) if ours else None
    return conditions.get("vector_dim"), int(conditions.get("image_channels") or 0)


def typed_vector(typed: Any, size: int | None = None) -> Tensor:
    """A vector as it was typed, or a list of them, float32 (number of vectors, D).

    Args:
        typed: A number, a list of numbers, or a list of such lists.
        size: D, where it is known.

    Raises:
        ValueError: Something that is no number, or another D.
    """
    rows = typed if isinstance(typed, list) else [typed]
    rows = rows if rows and all(isinstance(row, list) for row in rows) else [rows]
    for number in (number for row in rows for number in row):
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not math.isfinite(number):
            raise ValueError(f"vector={typed}: {number} is not a number")
    sizes = {len(row) for row in rows}
    wanted = {size} if size is not None else sizes
    if sizes != wanted or len(sizes) > 1 or 0 in sizes:
        numbers = "numbers, the same count in each" if size is None else f"{size} numbers"
        raise ValueError(f"vector={typed} must be a list of {numbers}, or a list of such lists")
    return torch.tensor(rows, dtype=torch.float32)


def held_out_condition(data: Any, number: int) -> Tensor:
    """Condition image `number` of a data module's test set, float32 (C, *).

    Raises:
        ValueError: There are fewer, or none.
    """
    data.prepare_data()
    data.setup("test")
    seen = 0
    for loaded in data.test_dataloader():
        image = _image_of(data.on_after_batch_transfer(loaded, 0))
        if image is None:
            raise ValueError(f"condition_image=test:{number}: the batches of this data have none")
        if number < seen + len(image):
            return image[number - seen].float()
        seen += len(image)
    raise ValueError(f"condition_image=test:{number}: the test set has images 0 .. {seen - 1}")


def _image_of(batch: Batch | Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor | None:
    """The condition images of what a loader gave, or None."""
    if isinstance(batch, Batch):
        return batch.given.image
    return batch.get("image") if isinstance(batch, Mapping) else None
