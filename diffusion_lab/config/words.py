"""The words of a command line: what is a flag, what an override, and which key one sets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusion_lab.errors import ConfigError

PATH_KEYS = frozenset(
    {"ckpt", "resume", "init_from", "run", "run_dir", "out", "paths.data_dir", "study.rows.ckpt"}
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
    """`key=value` with the quotes that Hydra's grammar needs around a path.

    Raises:
        ConfigError: The value would be resolved, which only what is typed may be.
    """
    text = str(value)
    if "${" in text:
        raise ConfigError(f"{key}={text}: ${{ in a name would be resolved; rename the file")
    if re.fullmatch(r"[\w./~@:+-]*", text):
        return f"{key}={text}"
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def key_of(override: str) -> str:
    """The key path that an override sets: `++a.b=1` -> `a.b`, `grid@x.y=z` -> `grid@x.y`."""
    return override.lstrip("+~").partition("=")[0].strip()


def trusted(overrides: Sequence[str]) -> list[str]:
    """The packages that are named by `trust=[...]` among overrides."""
    return re.findall(r"[\w.]+", value_of("trust", overrides) or "")
