"""What is wrong with the form of a checkpoint: a file may hold any plain data in any place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

DEEPEST = 32
"""Nodes in nodes of a stored configuration."""
LARGEST = 100_000
"""Values of a stored configuration."""
_STATES = ("state_dict", "current_model_state")


def malformed(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    """Sentences on what does not have the form that `checkpoints.format` describes."""
    own = checkpoint["diffusion_lab"]
    for name in ("config", "choices", "weights", "data"):
        if not isinstance(own.get(name, {}), Mapping | None):
            yield f"its {name} are a {type(own[name]).__name__}, not names with values"
            return
    for name in ("choices", "weights"):
        if not all(isinstance(text, str) for pair in own.get(name, {}).items() for text in pair):
            yield f"its {name} are not texts by name"
    start = own.get("init_from")
    if start and not (isinstance(start, Mapping) and isinstance(start.get("path"), str)):
        yield "its init_from names no path"
    if not set(own.get("weights", {})) <= set(_STATES):
        yield f"its weights are not in {' or '.join(_STATES)}"
    if not _is_small(own.get("config")):
        yield f"its configuration has over {LARGEST:,} values, or nodes over {DEEPEST} deep"
    for name in _STATES:
        yield from _no_weights(name, checkpoint.get(name, {}))
    step = checkpoint.get("global_step", 0)
    if not isinstance(step, int) or step < 0:
        yield "its global_step is no number of steps"


def _is_small(config: Any) -> bool:
    """Whether a configuration, which may hold one node many times, is soon gone through."""
    nodes, count = [(config, 0)], 0
    while nodes:
        node, depth = nodes.pop()
        count += 1
        if count > LARGEST or depth > DEEPEST:
            return False
        inner = node.values() if isinstance(node, Mapping) else node
        if isinstance(node, Mapping | list | tuple):
            nodes += [(child, depth + 1) for child in inner]
    return True


def _no_weights(name: str, state: Any) -> Iterator[str]:
    if not isinstance(state, Mapping):
        yield f"its {name} is a {type(state).__name__}, not tensors by name"
        return
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            yield f"{key} in its {name} is no tensor"
        elif value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
            yield f"{key} in its {name} is no tensor of plain numbers"
