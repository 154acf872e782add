"""Choosing a few out of many, evenly."""

from __future__ import annotations


def spread(length: int, count: int) -> list[int]:
    """Pick `min(count, length)` positions out of `range(length)`, evenly, both ends included.

    Raises:
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"strip={count}: give at least 1 intermediate step")
    if count == 1 or length == 1:
        return [length - 1]
    count = min(count, length)
    return [round(k * (length - 1) / (count - 1)) for k in range(count)]
