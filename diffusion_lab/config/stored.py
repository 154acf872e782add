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

from diffusion_lab.config.arguments import quoted, value_of
from diffusion_lab.config.composing import key_of
from diffusion_lab.errors import ConfigError

OPTION = "from_checkpoint"
"""Name of the option that holds what a checkpoint stores for a group."""

_NOT_STORED = frozenset({"paths", "experiment", "budget", "local", "debug", "logger", "trainer"})
_LAST: dict[str, Any] = {}


def stored_config() -> dict[str, Any]:
    """The training config of the checkpoint read last by this command; {} if none was."""
    return dict(_LAST)


def with_checkpoint(command: str, overrides: list[str], groups: list[str]) -> list[str]:
    """Overrides with `ckpt` made a file and the stored choices in front.

    Raises:
        ConfigError: There is no such checkpoint.
        CheckpointError: It cannot be read.
    """
    from diffusion_lab.training.checkpoint import read_checkpoint

    output = value_of("paths.output_dir", overrides) or "outputs"
    path = find_checkpoint(str(value_of("ckpt", overrides)), Path(output))
    config = dict(read_checkpoint(path)["diffusion_lab"]["config"])
    _LAST.clear()
    _LAST.update(config)
    typed = {key_of(word).split("@")[0] for word in overrides}
    front = []
    for group in groups:
        if group in config and group not in _NOT_STORED:
            _register(group, config[group])
            front += [] if group in typed else [f"{group}={OPTION}"]
    rest = [word for word in overrides if key_of(word) != "ckpt"]
    return [*front, *rest, quoted("ckpt", path)]


def _register(group: str, node: Any) -> None:
    """Make a stored node an option; a nested grid stays replaceable by `grid@sampler.grid=`."""
    store = ConfigStore.instance()
    if not isinstance(node, dict):
        store.store(name=OPTION, group=group, package="_global_", node={group: node})
        return
    node = {**node, "data_dir": "${paths.data_dir}"} if "data_dir" in node else dict(node)
    grid = node.pop("grid", None) if group == "sampler" else None
    if isinstance(grid, dict):
        store.store(name=OPTION, group="grid", node=grid)
        node = {"defaults": [{"/grid@grid": OPTION}, "_self_"], **node}
    store.store(name=OPTION, group=group, node=node)


def find_checkpoint(text: str, output: Path = Path("outputs")) -> Path:
    """The checkpoint file meant by a path.

    Args:
        text: A file, a run folder, a folder of runs (the newest), or `auto` (the newest of all).
        output: Where runs are, for `auto`.

    Raises:
        ConfigError: Nothing is there; the message lists what is.
    """
    path = output if text in {"auto", "latest"} else Path(text).expanduser()
    if path.is_file():
        return path
    direct = [path / "checkpoints" / "last.ckpt", path / "last.ckpt"]
    for candidate in direct:
        if candidate.is_file():
            return candidate
    if path.is_dir():
        found = sorted(path.rglob("last.ckpt"), key=lambda file: file.stat().st_mtime)
        if found:
            return found[-1]
        raise ConfigError(f"ckpt={text}: there is no checkpoint in {path}{_others(output)}")
    raise ConfigError(f"ckpt={text}: there is no such file or folder{_others(output)}")


def without_checkpoint(command: str, output: str = "outputs") -> str:
    """What to say where `ckpt` was not given."""
    return f"{command} needs ckpt=PATH, a checkpoint or a run folder{_others(Path(output))}"


def _others(output: Path) -> str:
    found = sorted(output.rglob("last.ckpt"), key=lambda f: f.stat().st_mtime)[-3:]
    if not found:
        return "; train first: python -m diffusion_lab.train experiment=quickstart"
    return "; newest here: " + ", ".join(str(path) for path in reversed(found))
