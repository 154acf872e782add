"""From a resolved configuration to a `DiffusionModule`; shared by training and loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusion_lab.training.module import DiffusionModule

PARTS = (
    "denoiser",
    "schedule",
    "parameterization",
    "objective",
    "sampler",
    "guidance",
    "constraint",
    "optimizer",
    "lr_scheduler",
)
"""Nodes of the configuration that become arguments of the module's constructor."""


def build_module(config: Mapping[str, Any], *, trust: Sequence[str] = ()) -> DiffusionModule:
    """Build the module that a configuration describes, its weights freshly initialised.

    Args:
        config: Resolved, with the node `model` and those of `PARTS`.
        trust: Further packages that a `_target_` may name.

    Raises:
        ConfigError: A `_target_` outside the allow-list.
        ValueError: A value out of range, from the constructor it belongs to.
    """
    from diffusion_lab.config import instantiate

    parts = {name: instantiate(config.get(name), trust=trust) for name in PARTS}
    return instantiate(config["model"], trust=trust, **parts)
