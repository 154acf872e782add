"""The words of a command line: flags, overrides, the key that one sets, and lists of values.

A study whose rows are a product of lists (`study=frontier`) is one command with one table, not a
sweep of commands: its lists are typed like those of a sweep, with or without `-m`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffusion_lab.config.composing import CONF
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
_FLAGS_OF_OWN_FILES = frozenset(
    {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}
)
_OVER = "study.rows.over"


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
        """Whether the command prints help or a completion script: nothing is rewritten then."""
        return any(flag in _SILENT_FLAGS for flag in self.flags)

    @property
    def shows(self) -> bool:
        """Whether the config is to be printed, not run."""
        return any(flag in {"--cfg", "-c"} for flag in self.flags)

    @property
    def multirun(self) -> bool:
        """Whether this is a sweep."""
        mode = value_of("hydra.mode", self.overrides)
        return "-m" in self.flags or "--multirun" in self.flags or mode == "MULTIRUN"

    @property
    def has_own_files(self) -> bool:
        """Whether yaml files of the user's own take part, which may hold any key and option."""
        return bool(_FLAGS_OF_OWN_FILES & set(self.flags))

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


@lru_cache(maxsize=512)
def read_override(word: str) -> Any:
    """An override as Hydra reads it; None where it cannot be read.

    The parser is no documented part of Hydra, and is called here alone.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def swept_values(word: str) -> list[str] | None:
    """The values that a word lists for a sweep (`seed=0,1`, `seed=range(0,2)`), or None."""
    from hydra.errors import HydraException

    override = read_override(word)
    if override is None or not override.is_sweep_override():
        return None
    try:
        return [str(value) for value in override.sweep_string_iterator()]
    except HydraException:
        return []  # an interval or a glob: several values, and no list of them


def combinations(over: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the values of lists, the last one varying fastest.

    Args:
        over: Words such as `sampler=euler,heun` or `sampler.steps=range(10,51,20)`.

    Raises:
        ConfigError: A word that is no list of values.
    """
    lists = []
    for word in over:
        override = read_override(word)
        if override is None:
            raise ConfigError(f"{_OVER}: cannot read {word!r}; write key=value,value")
        values = swept_values(word) or [override.get_value_element_as_str()]
        lists.append([f"{key_of(word)}={value}" for value in values])
    return list(itertools.product(*lists))


def into_rows(typed: Typed) -> list[str]:
    """What was typed, its lists handed to the study where that makes a product of them.

    Those of the study's own lists whose key was not typed stay; typed values win.
    """
    study = value_of("study", typed.overrides)
    if study is None or not (CONF / "study" / f"{study}.yaml").is_file():
        return typed.overrides
    from omegaconf import OmegaConf

    own = OmegaConf.select(OmegaConf.load(CONF / "study" / f"{study}.yaml"), "rows.over")
    if own is None or value_of(_OVER, typed.overrides) is not None:
        return typed.overrides
    typed.flags = [flag for flag in typed.flags if flag not in ("-m", "--multirun")]
    lists = [word for word in typed.overrides if swept_values(word) is not None]
    rest = [word for word in typed.overrides if word not in lists]
    keys = {key_of(word) for word in typed.overrides}
    over = [str(word) for word in own if key_of(str(word)) not in keys] + lists
    return [*rest, f"{_OVER}={json.dumps(over)}"]
