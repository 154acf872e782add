"""The choices stored in a checkpoint, put in front of what is typed.

`sample`, `evaluate` and `likelihood` need a checkpoint's path and nothing else: each group of the
command that the stored config knows becomes an option `from_checkpoint` of that group. What is
typed comes after it, so `sampler.steps=50` works on the stored sampler and `sampler=ddim` replaces
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from diffusion_lab.checkpoints.finding import find_checkpoint
from diffusion_lab.config.building import validate_stored
from diffusion_lab.config.words import key_of, quoted, trusted, value_of

OPTION = "from_checkpoint"
"""Name of the option that holds what a checkpoint stores for a group."""

OF_A_MODEL = (
    *("denoiser", "schedule", "parameterization", "sampler", "guidance", "constraint"),
    *("data", "model"),
)
"""Nodes of a stored configuration that `sample`, `evaluate` and `likelihood` use."""
PLACES = {"data_dir": "${paths.data_dir}", "cache": None}
"""Arguments of data that say where files are written: never what a file says."""


def with_checkpoint(
    command: str, overrides: list[str], groups: list[str]
) -> tuple[list[str], dict[str, Any]]:
    """Overrides with `ckpt` made a file and the stored choices in front; and the checkpoint.

    Raises:
        CheckpointError: There is no such checkpoint, or it cannot be read.
        ConfigError: Its configuration names what may not be built.
    """
    output = value_of("paths.output_dir", overrides) or "outputs"
    path = find_checkpoint(str(value_of("ckpt", overrides)), Path(output))
    from diffusion_lab.checkpoints.format import read_checkpoint  # needs torch

    checkpoint = read_checkpoint(path)
    config = checkpoint["diffusion_lab"]["config"]
    validate_stored(config, OF_A_MODEL, trusted(overrides), path)
    typed = {key_of(word).split("@")[0] for word in overrides}
    front = []
    for group in groups:
        if group in config and group in OF_A_MODEL:
            _register(group, config[group])
            front += [] if group in typed else [f"{group}={OPTION}"]
    rest = [word for word in overrides if key_of(word) != "ckpt"]
    return [*front, *rest, quoted("ckpt", path)], checkpoint


def _register(group: str, node: Any) -> None:
    """Make a stored node an option; a nested grid stays replaceable by `grid@sampler.grid=`."""
    store = ConfigStore.instance()
    if not isinstance(node, dict):
        store.store(name=OPTION, group=group, package="_global_", node={group: node})
        return
    node = {key: PLACES.get(key, value) for key, value in node.items()}
    grid = node.pop("grid", None) if group == "sampler" else None
    if isinstance(grid, dict):
        store.store(name=OPTION, group="grid", node=grid)
        node = {"defaults": [{"/grid@grid": OPTION}, "_self_"], **node}
    store.store(name=OPTION, group=group, node=node)
