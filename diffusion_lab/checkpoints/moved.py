"""Where classes of older checkpoints are now: a `_target_` is part of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED = {
    "diffusion_lab.diffusion.objectives.Objective": "diffusion_lab.diffusion.objectives.Regression",
    "diffusion_lab.training.stored_model.StoredModel": "diffusion_lab.loading.StoredModel",
}
"""Old dotted name -> new one."""


def renamed(node: Any) -> Any:
    """Plain data with every old `_target_` replaced by the new one."""
    if isinstance(node, Mapping):
        return {
            key: MOVED.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else renamed(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [renamed(value) for value in node]
    return node
