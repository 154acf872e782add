"""What is typed, rewritten before Hydra sees it.

`budget=auto` becomes `cpu` or `full`; paths get the quotes that Hydra's grammar wants; `list=GROUP`
answers and ends; `ckpt=` puts the choices stored in the checkpoint in front of what was typed.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_lab.config.composing import CONF, groups, key_of, options, raw

PATH_KEYS = frozenset(
    {"ckpt", "resume", "run", "run_dir", "out", "paths.data_dir", "study.rows.ckpt"}
)
"""Keys whose values are paths: `=`, spaces and brackets in them are no grammar."""

_VALUED_FLAGS = frozenset(
    {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"}
    | {"--config-dir", "-cd", "--info", "-i", "--shell-completion", "-sc"}
)
_SILENT_FLAGS = frozenset(
    {"--help", "-h", "--hydra-help", "--version", "--shell-completion", "-sc", "--info", "-i"}
)


@dataclass
class Typed:
    """A command line, taken apart.

    Attributes:
        flags: What starts with `-`, with its values.
        overrides: The rest: key=value and its relatives.
    """

    flags: list[str]
    overrides: list[str]

    @classmethod
    def of(cls, argv: Sequence[str]) -> Typed:
        """Take a command line apart."""
        flags: list[str] = []
        overrides: list[str] = []
        rest = iter(argv)
        for word in rest:
            if not word.startswith("-"):
                overrides.append(word)
                continue
            flags.append(word)
            if word in _VALUED_FLAGS:
                flags += [next(rest, "")]
        return cls(flags, overrides)

    @property
    def silent(self) -> bool:
        """Whether help or completion was asked for: nothing is rewritten then."""
        return any(flag in _SILENT_FLAGS for flag in self.flags)

    @property
    def shows(self) -> bool:
        """Whether the config is to be printed, not run."""
        return any(flag in {"--cfg", "-c"} for flag in self.flags)

    @property
    def multirun(self) -> bool:
        """Whether this is a sweep."""
        asked = value_of("hydra.mode", self.overrides)
        return "-m" in self.flags or "--multirun" in self.flags or asked == "MULTIRUN"

    @property
    def argv(self) -> list[str]:
        """The command line again."""
        return [*self.flags, *self.overrides]


def value_of(key: str, overrides: Sequence[str]) -> str | None:
    """The value typed last for a key, without quotes; None if it was not typed."""
    values = [text.partition("=")[2] for text in overrides if key_of(text) == key and "=" in text]
    return values[-1].strip().strip("'\"") if values else None


def quoted(key: str, value: str | Path) -> str:
    """`key=value` with the quotes that Hydra's grammar needs around a path."""
    text = str(value)
    if re.fullmatch(r"(\$\{[\w.]+\}|[\w./~@:+-])*", text):
        return f"{key}={text}"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def rewrite(command: str, overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra is to see them.

    Raises:
        ConfigError: A checkpoint that does not exist or cannot be read.
    """
    words = [_as_prompt(_as_path(word)) for word in overrides]
    if (CONF / f"{command}.yaml").is_file() and "budget" in _default_groups(command):
        words = with_budget(words)
    if value_of("ckpt", words) not in (None, "", "null", "???"):
        from diffusion_lab.config.stored import with_checkpoint

        words = with_checkpoint(command, words, _default_groups(command))
    return words


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
    """Whether an accelerator will be used, told from its driver: torch is not imported for this."""
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
    from diffusion_lab.config.suggestions import nearest
    from diffusion_lab.errors import ConfigError

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
    from omegaconf import OmegaConf

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
    from omegaconf import OmegaConf

    file = OmegaConf.to_container(OmegaConf.load(CONF / f"{command}.yaml"))
    names: list[str] = []
    for entry in file.get("defaults", []):  # type: ignore[union-attr]
        if isinstance(entry, dict):
            names.append(str(next(iter(entry))))
        elif entry != "_self_":
            names += _default_groups(str(entry))
    return [name for name in names if not name.startswith(("override ", "optional "))]
