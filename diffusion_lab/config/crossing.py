"""What must fit together in a config and needs no object to be built."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffusion_lab.config.suggestions import nearest

_SHARDING = ("fsdp", "deepspeed", "modelparallel")
"""In the names of strategies that keep a part of the weights on each device."""
_STORED_MODEL = "diffusion_lab.loading.StoredModel"
"""What reads the model of another run from its `path`."""
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
    return [*faults, *_missing_models(plain)]


def _missing_models(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(key path, sentence) of every second model that there is no file of."""
    if not isinstance(node, dict):
        return
    path = node.get("path") if node.get("_target_") == _STORED_MODEL else None
    if isinstance(path, str) and path != "???" and not Path(path).expanduser().exists():
        text = f"{where}.path={path} does not exist; name a checkpoint or a run folder"
        yield f"{where}.path", text
    for key, value in node.items():
        yield from _missing_models(value, f"{where}.{key}" if where else str(key))


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
