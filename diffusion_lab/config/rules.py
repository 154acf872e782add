"""Ranges of the keys that no class of this package states: the commands' own, and foreign classes'.

Our own constructors state theirs in annotations (`diffusion_lab.ranges`), and the torch-only
components refuse their own values when they are built on the meta device.
"""

from __future__ import annotations

import fnmatch
import math
import re
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
        from diffusion_lab.config.messages import nearest

        if value in self.values:
            return None
        names = [str(entry) for entry in self.values]
        return f"must be one of {', '.join(names)}" + nearest(str(value), names).split(";")[0]


@dataclass(frozen=True)
class BatchShare:
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


@dataclass(frozen=True)
class Devices:
    """A number of devices, -1 or auto for all there are, or a list of their indices."""

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        entries = value if isinstance(value, list) and value else [None]
        ok = (
            (type(value) is int and (value == -1 or value >= 1))
            or (isinstance(value, str) and re.fullmatch(r"auto|-1|[1-9]\d*|(\d+,)+\d*", value))
            or all(type(entry) is int and entry >= 0 for entry in entries)
        )
        return None if ok else "must be an integer of at least 1, -1 or auto (all), or a list"


@dataclass(frozen=True)
class Device:
    """A torch device by name, or auto."""

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, or None."""
        from diffusion_lab.config.messages import nearest

        if str(value) in ("auto", "cpu", "mps") or str(value).startswith("cuda"):
            return None
        hint = nearest(str(value), ["auto", "cpu", "cuda", "mps"])
        return f"must be auto, cpu, cuda, cuda:1 or mps{hint}"


_COUNT = Number(1, whole=True)
_PRECISIONS = ("auto", "32-true", "32", 32, "bf16-mixed", "16-mixed")
"""Images and losses are float32, so weights of another type (`bf16-true`) do not fit them."""

Rule = Number | Choice | BatchShare | Each | Devices | Device

RULES: dict[str, Rule] = {
    "seed": Number(0, 2**32 - 1, whole=True),
    "num_samples": Number(1, whole=True, null=True),
    "batch_size": Number(1, whole=True, null=True),
    "device": Device(),
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
    "trainer.max_epochs": Number(-1, whole=True, null=True),
    "trainer.max_steps": Number(-1, whole=True),
    "trainer.accumulate_grad_batches": _COUNT,
    "trainer.check_val_every_n_epoch": Number(1, whole=True, null=True),
    "trainer.val_check_interval": BatchShare(above_zero=True),
    "trainer.log_every_n_steps": Number(0, whole=True, null=True),
    "trainer.gradient_clip_val": Number(0, null=True),
    "trainer.limit_train_batches": BatchShare(above_zero=True),
    "trainer.limit_*_batches": BatchShare(),
    "trainer.devices": Devices(),
    "trainer.overfit_batches": BatchShare(),
    "trainer.num_nodes": _COUNT,
    "trainer.num_sanity_val_steps": Number(-1, whole=True, null=True),
    "trainer.precision": Choice(_PRECISIONS),
    "callbacks.pruning.pruner.n_*": Number(0, whole=True),
    "hydra.launcher.n_jobs": Number(-1, whole=True),
    "hydra.launcher.nodes": _COUNT,
    "hydra.launcher.timeout_min": _COUNT,
    "hydra.launcher.*_per_*": Number(0, whole=True, null=True),
    "hydra.launcher.array_parallelism": _COUNT,
    "hydra.sweeper.n_*": _COUNT,
    "hydra.sweeper.max_failure_rate": Number(0, 1),
    "hydra.sweeper.sampler.seed": Number(0, 2**32 - 1, whole=True, null=True),
    "hydra.sweeper.sampler.n_startup_trials": Number(0, whole=True),
    "trainer.accelerator": Choice(("auto", "cpu", "gpu", "cuda", "mps", "tpu")),
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
