"""Ranges of the keys whose classes are too heavy to build for a check.

The torch-only components are built on the meta device and refuse their own values; this table
serves what stands behind lightning, torchvision and the commands themselves.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A number in [low, high], or above low where `above`.

    Attributes:
        low: Smallest value; None: no bound.
        high: Largest value; None: no bound.
        whole: Integers only.
        above: `low` itself is refused.
        null: null is allowed.
    """

    low: float | None = None
    high: float | None = None
    whole: bool = False
    above: bool = False
    null: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence, or None."""
        if value is None:
            return None if self.null else f"is null; {self}"
        wrong_type = isinstance(value, bool) or not isinstance(value, int | float)
        if wrong_type or (self.whole and not isinstance(value, int)):
            return str(self)
        low = self.low is not None and (value <= self.low if self.above else value < self.low)
        high = self.high is not None and value > self.high
        return str(self) if low or high or not math.isfinite(value) else None

    def __str__(self) -> str:
        kind = "an integer" if self.whole else "a number"
        low = None if self.low is None else f"{'above' if self.above else 'of at least'} {self.low}"
        high = None if self.high is None else f"at most {self.high}"
        bounds = " and ".join(text for text in (low, high) if text)
        null = ", or null" if self.null else ""
        return f"must be {kind}" + (f" {bounds}" if bounds else "") + null


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        from diffusion_lab.config.suggestions import nearest

        if value in self.values:
            return None
        names = [str(entry) for entry in self.values]
        return f"must be one of {', '.join(names)}" + nearest(str(value), names).split(";")[0]


@dataclass(frozen=True)
class Share:
    """A number of things (integer >= 0) or a share of them (float in [0, 1]).

    Attributes:
        above_zero: 0 is refused.
    """

    above_zero: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        ok = value is None or (
            not isinstance(value, bool)
            and (
                (isinstance(value, int) and value >= 0)
                or (isinstance(value, float) and 0.0 <= value <= 1.0)
            )
            and not (self.above_zero and value == 0)
        )
        return None if ok else "must be a number of batches (3) or a share of them (0.1 to 1.0)"


@dataclass(frozen=True)
class Each:
    """A list whose entries all keep a rule.

    Attributes:
        rule: That of each entry.
        null: null is allowed in place of the list.
    """

    rule: Number
    null: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        if value is None and self.null:
            return None
        wrong = not isinstance(value, list) or any(self.rule.fault(entry) for entry in value)
        return f"must be a list, each entry {str(self.rule)[len('must be ') :]}" if wrong else None


_COUNT = Number(1, whole=True)
_PRECISIONS = (
    "auto", "32-true", "32", 32, "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "64",
    64,
)  # fmt: skip

RULES: dict[str, Number | Choice | Share | Each] = {
    "seed": Number(0, 2**32 - 1, whole=True),
    "num_samples": Number(1, whole=True, null=True),
    "batch_size": Number(1, whole=True, null=True),
    "devices": _COUNT,
    "columns": Number(1, whole=True, null=True),
    "strip": Number(0, whole=True),
    "interpolate": Number(0, whole=True),
    "start": Number(0, 1, above=True, null=True),
    "frames": Number(2, whole=True),
    "weights": Choice(("ema", "raw")),
    "optimizer.lr": Number(0, above=True),
    "optimizer.eps": Number(0),
    "optimizer.weight_decay": Number(0),
    "optimizer.betas": Each(Number(0, 0.9999999)),
    "optimizer.momentum": Number(0, 1),
    "lr_scheduler.warmup_steps": Number(0, whole=True),
    "lr_scheduler.final_fraction": Number(0, 1),
    "trainer.max_epochs": Number(-1, whole=True, null=True),
    "trainer.max_steps": Number(-1, whole=True),
    "trainer.accumulate_grad_batches": _COUNT,
    "model.level_images": Number(0, whole=True),
    "trainer.check_val_every_n_epoch": Number(1, whole=True, null=True),
    "trainer.val_check_interval": Share(above_zero=True),
    "trainer.log_every_n_steps": Number(0, whole=True, null=True),
    "trainer.gradient_clip_val": Number(0, null=True),
    "trainer.limit_*_batches": Share(),
    "trainer.overfit_batches": Share(),
    "trainer.num_nodes": _COUNT,
    "trainer.num_sanity_val_steps": Number(-1, whole=True, null=True),
    "trainer.precision": Choice(_PRECISIONS),
    "trainer.accelerator": Choice(("auto", "cpu", "gpu", "cuda", "mps", "tpu")),
    "data.batch_size": _COUNT,
    "data.eval_batch_size": Number(1, whole=True, null=True),
    "data.validation_size": Number(1, whole=True, null=True),
    "data.train_images": Number(1, whole=True, null=True),
    "data.exclude": Each(Number(0, whole=True), null=True),
    "data.test_share": Number(0, 0.9, above=True),
    "data.crop": Number(1, whole=True, null=True),
    "data.num_classes": Number(1, whole=True, null=True),
    "data.download_timeout": Number(0, above=True),
    "data.when_missing": Choice(("digits", "error")),
    "model.label_dropout": Number(0, 1),
    "model.data_std": Number(0, above=True),
    "callbacks.*.decay": Number(0, 1),
    "callbacks.*.warmup*": Number(0, null=True),
    "callbacks.*.num_samples": _COUNT,
    "callbacks.*.every_n_epochs": Number(1, whole=True, null=True),
    "callbacks.*.every_n_*": Number(0, whole=True, null=True),
    "callbacks.*.keep_every_n_*": Number(1, whole=True, null=True),
    "callbacks.*.at": Each(_COUNT, null=True),
    "callbacks.*.columns": Number(1, whole=True, null=True),
    "callbacks.*.guidance.scale": Number(),
    "callbacks.*.scale": _COUNT,
    "callbacks.*.seed": Number(0, 2**32 - 1, whole=True),
    "callbacks.*.moments": _COUNT,
    "callbacks.*.images": _COUNT,
    "callbacks.*.rows": _COUNT,
    "callbacks.*.save_top_k": Number(-1, whole=True),
}
"""Key pattern -> what its value must be."""


def leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, value) of everything in a plain config that is not a dict."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, plain


def ranged(plain: dict[str, Any]) -> dict[str, str]:
    """Faults of all keys that the table knows, and of numbers that are not finite.

    Returns:
        Key path -> sentence.
    """
    faults: dict[str, str] = {}
    for path, value in leaves(plain):
        pattern = next((name for name in RULES if fnmatch.fnmatchcase(path, name)), None)
        fault = RULES[pattern].fault(value) if pattern else None
        if fault is None and isinstance(value, float) and not math.isfinite(value):
            fault = "must be a finite number"
        if fault is not None:
            faults[path] = f"{path}={shown(value)} {fault}"
    return faults


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
