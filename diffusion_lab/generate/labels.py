"""The conditions of each image: what a user may write for a label, and further conditions.

A prompt composes classes:

    prompt  = clause {"," clause}        all clauses hold
    clause  = "not" class                pushed away from a class
            | choice {"or" choice}       each image takes one of the choices, in turn
    choice  = class {"and" class}        drawn towards all of them at once

"3 or 8, not 4" is half threes and half eights, none of which looks like a four. "or" is exact: to
draw from a mixture is to draw a component first. "and" and "not" add and subtract score differences
(`ClassifierFree`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffusion_lab.diffusion.conditions import Condition

Label = int | str | Sequence[int] | Tensor | None


def expand_labels(label: Label, num_samples: int, num_classes: int | None) -> Tensor | None:
    """The class of each of `num_samples` images, on the CPU.

    Args:
        label: A class number; a list or tensor of them, repeated from its start until all
            images have one; "all", which is 0, 1, ..., num_classes - 1 repeated; a prompt such as
            "3 or 8, not 4"; a tensor (N, K) of composed labels; or None for no class.
        num_samples: Images, at least 1.
        num_classes: Classes of the model; None where it was trained without.

    Returns:
        int64 tensor (num_samples,); of a prompt that composes, (num_samples, K), where ~k (which is
        -1 - k) means "not k" and num_classes fills up; or None for no class.

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
    if isinstance(label, str):
        numbers = _parsed(label, num_classes)
    else:
        numbers = torch.as_tensor(label).detach().cpu()
        numbers = numbers if numbers.ndim == 2 else numbers.flatten()
    if not len(numbers) or numbers.is_floating_point() or numbers.dtype == torch.bool:
        raise ValueError(f"label={label!r}: give at least one whole class number")
    composed = numbers.ndim == 2
    lowest, highest = (~(num_classes - 1), num_classes) if composed else (0, num_classes - 1)
    outside = sorted({int(n) for n in numbers.flatten() if not lowest <= n <= highest})
    if outside:
        raise ValueError(
            f"label={', '.join(map(str, outside))}: classes are 0 .. {num_classes - 1}"
        )
    repeats = -(-num_samples // len(numbers))
    return numbers.long().repeat(repeats, *([1] if composed else []))[:num_samples]


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


def typed_label(label: Any, num_classes: int | None) -> Label:
    """A label as it was typed, as `expand_labels` takes it.

    `all` means no class where there are none; lists of a configuration become plain ones.
    """
    if label == "all" and num_classes is None:
        return None
    return label if isinstance(label, str | int | None) else list(label)


def _parsed(text: str, num_classes: int) -> Tensor:
    """A word or a prompt as class numbers, (choices,) or (choices, K).

    Raises:
        ValueError: what cannot be read, with the grammar.
    """
    if text == "all":
        return torch.arange(num_classes)
    choices: list[list[int]] = []
    away: list[int] = []
    for clause in text.split(","):
        negated = re.fullmatch(r"\s*not\s+(\d+)\s*", clause)
        if negated:
            away.append(_known(int(negated[1]), num_classes))
        elif re.fullmatch(r"\s*\d+(\s+(or|and)\s+\d+)*\s*", clause) and not choices:
            choices = [
                [_known(int(number), num_classes) for number in re.split(r"\s+and\s+", choice)]
                for choice in re.split(r"\s+or\s+", clause.strip())
            ]
        else:
            raise ValueError(
                f"label={text!r}: give a class number, a list of them, all, null, or a prompt of "
                "classes such as '3 or 8, not 4' or '1 and 7' (one clause of choices, any number "
                "of nots)"
            )
    choices = choices or [[]]
    if not away and all(len(choice) == 1 for choice in choices):
        return torch.tensor([choice[0] for choice in choices])
    width = max(map(len, choices))
    rows = [[*c, *[num_classes] * (width - len(c)), *(~n for n in away)] for c in choices]
    return torch.tensor(rows)


def _known(number: int, num_classes: int) -> int:
    """The number, if there is such a class."""
    if number >= num_classes:
        raise ValueError(f"label={number}: classes are 0 .. {num_classes - 1}")
    return number
