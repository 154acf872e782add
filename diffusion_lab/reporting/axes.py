"""Axes for inline SVG: values to box units, round ticks, and how a number is written."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """The size of a drawing, and the margins around what is drawn, in its own units."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    @property
    def across(self) -> tuple[float, float]:
        """Ends of the axis across, from left to right."""
        return self.left, self.width - self.right

    @property
    def up(self) -> tuple[float, float]:
        """Ends of the axis up, from bottom to top."""
        return self.height - self.bottom, self.top


@dataclass(frozen=True)
class Tick:
    """A grid line: its place along the axis, in box units, and its text."""

    place: float
    text: str


class Axis:
    """A map from values to box units, linear or logarithmic.

    Args:
        low: lowest value; positive if ``log``.
        high: highest value; where it equals ``low``, room is made on both sides.
        ends: box units of the two.
        log: logarithmic.
    """

    def __init__(self, low: float, high: float, ends: tuple[float, float], log: bool) -> None:
        if low == high:
            room = abs(low) / 2 or 0.5
            low, high = (low / 2, high * 2) if log else (low - room, high + room)
        self.low, self.high, self.log = low, high, log
        self.start, self.end = ends

    def __call__(self, value: float) -> float:
        """Where a value stands, in box units."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> tuple[Tick, ...]:
        """Round numbers inside the axis."""
        values = self._decades() if self.log else self._rounds()
        if len(values) < 2:
            values = self._rounds()
        return tuple(Tick(self(value), f"{value:g}") for value in values)

    def _rounds(self) -> list[float]:
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= max(f for f in (1, 2, 5) if f == 1 or f * step <= (self.high - self.low) / 3)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]

    def _decades(self) -> list[float]:
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if last - first <= 2 else (1,)
        values = [f * 10.0**k for k in range(first, last + 1) for f in factors]
        return [value for value in values if self.low <= value <= self.high]
