"""What must fit together in a config and needs no object to be built."""

from __future__ import annotations

import re
from typing import Any

from diffusion_lab.config.suggestions import nearest

_SHARDING = ("fsdp", "deepspeed", "modelparallel")
"""In the names of strategies that keep a part of the weights on each device."""
_ENDS = ("", "_find_unused_parameters_true", "_find_unused_parameters_false")
_STRATEGIES = (
    *("auto", "single_device", "single_xla", "xla", "xla_debug"),
    *(f"ddp{start}{end}" for start in ("", "_spawn", "_fork", "_notebook") for end in _ENDS),
)


def cross(plain: dict[str, Any]) -> list[tuple[str, str]]:
    """(key path, sentence) of each fault."""
    faults: list[tuple[str, str]] = []
    trainer = plain.get("trainer") or {}
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if epochs == 0 or steps == 0:
        key = "max_epochs" if epochs == 0 else "max_steps"
        faults.append((f"trainer.{key}", f"trainer.{key}=0 would train nothing; take at least 1"))
    elif epochs == -1 and steps == -1:
        text = "trainer.max_epochs=-1 and trainer.max_steps=-1 never end; set one of them"
        faults.append(("trainer.max_epochs", text))
    strategy = _fault_of_strategy(trainer.get("strategy"))
    if strategy:
        faults.append(("trainer.strategy", strategy))
    excluded = _fault_of_exclude(plain.get("data") or {})
    if excluded:
        faults.append(("data.exclude", excluded))
    shape = (plain.get("data") or {}).get("shape")
    if shape is not None and not (
        isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)
    ):
        faults.append(
            ("data.shape", f"data.shape={shape} must be positive integers, e.g. [1,28,28]")
        )
    name = plain.get("name")
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(name)):
        text = (
            f"name={name} must be letters, digits, dots, dashes or underscores: it names a folder"
        )
        faults.append(("name", text))
    return faults


def _fault_of_exclude(data: dict[str, Any]) -> str | None:
    """What is wrong with the classes left out, where the number of classes is stated, or None."""
    exclude, count = data.get("exclude"), data.get("num_classes")
    if not isinstance(exclude, list) or not isinstance(count, int):
        return None
    unknown = [label for label in exclude if isinstance(label, int) and label >= count]
    if unknown:
        return f"data.exclude={exclude}: there is no class {unknown[0]}; there are 0 to {count - 1}"
    if set(range(count)) <= set(exclude):
        return f"data.exclude={exclude} leaves out all classes; keep at least one"
    return None


def _fault_of_strategy(strategy: Any) -> str | None:
    """What is wrong with how processes share the work, or None."""
    if isinstance(strategy, dict):
        strategy = str(strategy.get("_target_", "")).rsplit(".", 1)[-1]
    name = str(strategy or "auto")
    if any(part in name.lower() for part in _SHARDING):
        return (
            f"trainer.strategy={name} splits the weights over the devices, which the averaged "
            "weights (callbacks.ema) and the checkpoints cannot follow; use trainer=ddp: models "
            "of this size fit on each device"
        )
    if isinstance(strategy, str) and strategy not in _STRATEGIES:
        return f"trainer.strategy={name} is not known{nearest(name, _STRATEGIES)}"
    return None
