"""What a user may write for a label, turned into one class number an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Label = int | str | Sequence[int] | Tensor | None


def expand_labels(label: Label, num_samples: int, num_classes: int | None) -> Tensor | None:
    """One class number for each of `num_samples` images, on the CPU.

    Args:
        label: A class number; a list or tensor of them, repeated from its start until all
            images have one; "all", which is 0, 1, ..., num_classes - 1 repeated; or None for no
            class.
        num_samples: Images, at least 1.
        num_classes: Classes of the model; None where it was trained without.

    Returns:
        int64 tensor (num_samples,), or None for no class.

    Raises:
        ValueError: no images, a class that does not exist, or a label for a model without classes.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} must be at least 1")
    if label is None:
        return None
    if num_classes is None:
        raise ValueError(
            f"label={label!r}: this model was trained without classes; leave label out"
        )
    if isinstance(label, str) and label != "all":
        raise ValueError(f"label={label!r}: give a class number, a list of them, all, or null")
    classes = range(num_classes) if isinstance(label, str) else label
    numbers = torch.as_tensor(list(classes) if isinstance(classes, range) else classes)
    numbers = numbers.detach().cpu().flatten()
    if not len(numbers) or numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise ValueError(f"label={label!r}: give at least one whole class number")
    outside = sorted({int(n) for n in numbers if not 0 <= n < num_classes})
    if outside:
        raise ValueError(
            f"label={', '.join(map(str, outside))}: classes are 0 .. {num_classes - 1}"
        )
    repeats = -(-num_samples // len(numbers))
    return numbers.long().repeat(repeats)[:num_samples]
