"""Ranges of the keys that no class of this package states: the commands' own, and foreign classes'.

Our own constructors state theirs in annotations, see `diffusion_lab.ranges`; these are written and
judged alike.
"""

from __future__ import annotations

import ast
import fnmatch
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffusion_lab.ranges import mismatches

Rule = str | Callable[[Any], str | None]
"""An annotation, or a function: what it expected of a value that it does not take, or None."""


def _devices(value: Any) -> str | None:
    """A number of devices, -1 or auto for all there are, or their indices."""
    entries = value if isinstance(value, list) and value else [None]
    fits = (
        (type(value) is int and (value == -1 or value >= 1))
        or (isinstance(value, str) and re.fullmatch(r"auto|-1|[1-9]\d*|(\d+,)+\d*", value))
        or all(type(entry) is int and entry >= 0 for entry in entries)
    )
    return None if fits else "an integer of at least 1, -1 or auto (all), or a list"


def _device(value: Any) -> str | None:
    """A torch device by name, or auto."""
    from diffusion_lab.config.messages import nearest

    if str(value) in ("auto", "cpu", "mps") or str(value).startswith("cuda"):
        return None
    hint = nearest(str(value), ["auto", "cpu", "cuda", "mps"])
    return f"auto, cpu, cuda, cuda:1 or mps{hint}"


_BATCHES = "Natural | Share | None"
"""A number of batches, or a share of them."""
RULES: dict[str, Rule] = {
    "seed": "Seed",
    "num_samples": "Count | None",
    "batch_size": "Count | None",
    "device": _device,
    "devices": "Count",
    "columns": "Count | None",
    "strip": "Natural",
    "interpolate": "Natural",
    "start": "Annotated[float, Gt(0), Le(1)] | None",
    "frames": "Annotated[int, Ge(2)]",
    "weights": "Literal['ema', 'raw']",
    "optimizer.lr": "Positive",
    "optimizer.eps": "NonNegative",
    "optimizer.weight_decay": "NonNegative",
    "optimizer.betas": "list[Annotated[float, Ge(0), Lt(1)]]",
    "optimizer.momentum": "Share",
    "trainer.max_epochs": "Annotated[int, Ge(-1)] | None",
    "trainer.max_steps": "Annotated[int, Ge(-1)]",
    "trainer.accumulate_grad_batches": "Count",
    "trainer.check_val_every_n_epoch": "Count | None",
    "trainer.val_check_interval": "Count | Annotated[float, Gt(0), Le(1)] | None",
    "trainer.log_every_n_steps": "Natural | None",
    "trainer.gradient_clip_val": "NonNegative | None",
    "trainer.limit_train_batches": "Count | Annotated[float, Gt(0), Le(1)] | None",
    "trainer.limit_*_batches": _BATCHES,
    "trainer.devices": _devices,
    "trainer.overfit_batches": _BATCHES,
    "trainer.num_nodes": "Count",
    "trainer.num_sanity_val_steps": "Annotated[int, Ge(-1)] | None",
    # Images and losses are float32, so weights of another type (`bf16-true`) do not fit them
    "trainer.precision": "Literal['auto', '32-true', '32', 32, 'bf16-mixed', '16-mixed']",
    "trainer.accelerator": "Literal['auto', 'cpu', 'gpu', 'cuda', 'mps', 'tpu']",
    "callbacks.pruning.pruner.n_*": "Natural",
    "hydra.launcher.n_jobs": "Annotated[int, Ge(-1)]",
    "hydra.launcher.nodes": "Count",
    "hydra.launcher.timeout_min": "Count",
    "hydra.launcher.*_per_*": "Natural | None",
    "hydra.launcher.array_parallelism": "Count",
    "hydra.sweeper.n_*": "Count",
    "hydra.sweeper.max_failure_rate": "Share",
    "hydra.sweeper.sampler.seed": "Seed | None",
    "hydra.sweeper.sampler.n_startup_trials": "Natural",
}
"""Key pattern -> what its value must be; the first one that fits counts."""


def leaves(plain: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key path, value) of everything in a plain config that is not a dict."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, plain


def ranged(
    plain: dict[str, Any], arguments: Sequence[tuple[str, Any, ast.expr | None]] = ()
) -> dict[str, str]:
    """Errors of keys that have another type or range than their class or the table states.

    Args:
        plain: A config; its numbers must be finite.
        arguments: (key path, value, annotation) of what constructors take.

    Returns:
        Key path -> sentence.
    """
    values = {path: value for path, value, _ in arguments} | dict(leaves(plain))
    stated = [(path, value, _rule_of(path)) for path, value in leaves(plain)]
    expected = expectations([*arguments, *stated])
    for path, value in values.items():
        if path not in expected and isinstance(value, float) and not math.isfinite(value):
            expected[path] = "a finite number"
    return {path: f"{path}={shown(values[path])} must be {text}" for path, text in expected.items()}


def expectations(
    stated: Sequence[tuple[str, Any, Rule | ast.expr | None]],
) -> dict[str, str]:
    """What is expected, by key, of (key, value, rule or annotation) that do not fit."""
    read = [(key, value, rule) for key, value, rule in stated if not callable(rule)]
    found = mismatches((value, rule) for _, value, rule in read)
    pairs = [(key, text) for (key, _, _), text in zip(read, found, strict=True)]
    pairs += [(key, rule(value)) for key, value, rule in stated if callable(rule)]
    expected: dict[str, str] = {}
    for key, text in pairs:
        if text is not None:
            expected.setdefault(key, text)
    return expected


def _rule_of(path: str) -> Rule | None:
    return next((rule for name, rule in RULES.items() if fnmatch.fnmatchcase(path, name)), None)


def shown(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
