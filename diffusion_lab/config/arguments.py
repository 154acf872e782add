"""What is typed, rewritten before Hydra sees it.

`budget=auto` becomes `cpu` or `full`; paths get the quotes that Hydra's grammar wants; `list=GROUP`
answers and ends; `ckpt=` puts the choices stored in the checkpoint in front of what was typed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.checkpoint_defaults import with_checkpoint
from diffusion_lab.config.composing import CONF, groups, options, raw, settle
from diffusion_lab.config.messages import explain, nearest
from diffusion_lab.config.words import PATH_KEYS, key_of, quoted, value_of
from diffusion_lab.errors import ConfigError


def compose(command: str, overrides: Sequence[str] = (), *, settled: bool = True) -> DictConfig:
    """The config of a command, as its command line would make it.

    Args:
        command: train, sample, evaluate, likelihood ...: a yaml file at the top of `conf/`.
        overrides: As typed: key=value, group=option, +key=value, ~key.
        settled: Also leave out what a recipe sets for another option than the chosen one.

    Returns:
        The config, without Hydra's own node.

    Raises:
        ConfigError: An unknown key or option, or a value that cannot be read.
    """
    return compose_with_checkpoint(command, overrides, settled=settled)[0]


def compose_with_checkpoint(
    command: str, overrides: Sequence[str] = (), *, settled: bool = True
) -> tuple[DictConfig, dict[str, Any] | None]:
    """See `compose`; and the checkpoint that `ckpt=` names, if any, which is read for it."""
    typed, checkpoint = with_stored(command, overrides)
    try:
        cfg = raw(command, typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, command, typed)) from None
    return settle(cfg, map(key_of, typed)) if settled else cfg, checkpoint


def rewrite(command: str, overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra is to see them; see `with_stored`."""
    return with_stored(command, overrides)[0]


def with_stored(command: str, overrides: Sequence[str]) -> tuple[list[str], dict[str, Any] | None]:
    """Overrides as Hydra is to see them, and the checkpoint that `ckpt=` names, if any.

    Raises:
        CheckpointError: A checkpoint that does not exist or cannot be read.
        ConfigError: One that holds what may not be built.
    """
    words = [_as_prompt(_as_path(word)) for word in overrides]
    if (CONF / f"{command}.yaml").is_file() and "budget" in _default_groups(command):
        words = with_budget(words)
    if value_of("ckpt", words) not in (None, "", "null", "???"):
        return with_checkpoint(command, words, _default_groups(command))
    return words, None


def with_budget(overrides: list[str]) -> list[str]:
    """`budget=auto`, or none at all, settled by the device."""
    device = "full" if has_accelerator(overrides) else "cpu"
    if value_of("budget", overrides) is None:
        return [f"budget={device}", *overrides]

    def settled(word: str) -> str:
        key, _, value = word.partition("=")
        if key_of(word) != "budget":
            return word
        return f"{key}=" + ",".join(device if v == "auto" else v for v in value.split(","))

    return [settled(word) for word in overrides]


def has_accelerator(overrides: Sequence[str] = ()) -> bool:
    """Whether an accelerator will be used; its driver says so, torch is not imported."""
    if (
        value_of("trainer", overrides) == "cpu"
        or value_of("trainer.accelerator", overrides) == "cpu"
    ):
        return False
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return True
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in {"", "-1"}:
        return False
    drivers = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
    return any(Path(driver).exists() for driver in drivers)


def listing(word: str) -> str:
    """The answer to `list=GROUP`: its choices, each with the first comment of its file.

    Raises:
        ConfigError: There is no such group.
    """
    group = word.partition("=")[2].strip("/ ")
    if not group:
        return "Groups (list=GROUP lists the choices of one):\n  " + "\n  ".join(groups())
    names = options(group)
    if not names:
        raise ConfigError(f"list={group}: no such group{nearest(group, groups())}")
    lines = {name: _first_comment(CONF / group / f"{name}.yaml") for name in names}
    if group == "budget":
        lines = {"auto": "cpu or full, by the device that is found (default).", **lines}
    width = max(map(len, lines))
    return f"{group}=\n" + "\n".join(f"  {name:<{width}}  {text}" for name, text in lines.items())


def help_text(command: str, overrides: Sequence[str] = ()) -> str:
    """The answer to `--help`: how to use the command, the groups, the config.

    Hydra's own listing of the groups takes time that grows with their square.
    """
    text = str(OmegaConf.load(CONF / f"{command}.yaml").hydra.help.template)
    known = [f"{group}: {', '.join(options(group))}" for group in groups()]
    config = OmegaConf.to_yaml(raw(command, rewrite(command, overrides)))
    return text.replace("$APP_CONFIG_GROUPS", "\n".join(known)).replace("$CONFIG", config).rstrip()


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ")
        if line and not line.startswith("#"):
            break
    return ""


def _as_path(word: str) -> str:
    """Quote the value of a path key unless it is quoted, empty, null or a sweep."""
    key, equals, value = word.partition("=")
    special = not value or value[0] in "'\"" or value in {"null", "???"} or "${" in value
    if not equals or key_of(word) not in PATH_KEYS or special:
        return word
    if "," in value and not Path(value).exists() and not Path(value).parent.is_dir():
        return word
    return quoted(key, value)


def _as_prompt(word: str) -> str:
    """Quote a label of several words, as in label='3 or 8, not 4', which the shell has unquoted."""
    key, _, value = word.partition("=")
    if key_of(word) != "label" or " " not in value.strip() or value[0] in "'\"[":
        return word
    return quoted(key, value)


def _default_groups(command: str) -> list[str]:
    """Groups in the defaults list of a command, in order; of the commands it builds on too."""
    file = OmegaConf.to_container(OmegaConf.load(CONF / f"{command}.yaml"))
    names: list[str] = []
    for entry in file.get("defaults", []):  # type: ignore[union-attr]
        if isinstance(entry, dict):
            names.append(str(next(iter(entry))))
        elif entry != "_self_":
            names += _default_groups(str(entry))
    return [name for name in names if not name.startswith(("override ", "optional "))]
