"""Lists as Hydra's multirun takes them (`sampler.steps=10,20`), multiplied out by ourselves.

A study whose rows are a product of lists (`study=frontier`) is one command with one table, not a
sweep of commands: its lists are typed like those of a sweep, with or without `-m`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from diffusion_lab.config.groups import CONF
from diffusion_lab.config.words import Typed, key_of, value_of
from diffusion_lab.errors import ConfigError

_OVER = "study.rows.over"


def combinations(over: Sequence[str]) -> list[tuple[str, ...]]:
    """Every combination of the values of lists, the last one varying fastest.

    Args:
        over: Words such as `sampler=euler,heun` or `sampler.steps=range(10,51,20)`.

    Raises:
        ConfigError: A word that is no list of values.
    """
    lists = []
    for word in over:
        key, values = key_of(word), _values(word)
        lists.append([f"{key}={value}" for value in values])
    return list(itertools.product(*lists))


def _values(word: str) -> list[str]:
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(f"{_OVER}: cannot read {word!r}: {error}") from None
    if parsed.is_sweep_override():
        return [str(value) for value in parsed.sweep_string_iterator()]
    return [parsed.get_value_element_as_str()]


def into_rows(typed: Typed) -> list[str]:
    """What was typed, its lists handed to the study where that makes a product of them.

    Those of the study's own lists whose key was not typed stay; typed values win.
    """
    study = value_of("study", typed.overrides)
    if study is None or not (CONF / "study" / f"{study}.yaml").is_file():
        return typed.overrides
    own = OmegaConf.select(OmegaConf.load(CONF / "study" / f"{study}.yaml"), "rows.over")
    if own is None or value_of(_OVER, typed.overrides) is not None:
        return typed.overrides
    typed.flags = [flag for flag in typed.flags if flag not in ("-m", "--multirun")]
    lists = [word for word in typed.overrides if _is_list(word)]
    rest = [word for word in typed.overrides if word not in lists]
    keys = {key_of(word) for word in typed.overrides}
    over = [str(word) for word in own if key_of(str(word)) not in keys] + lists
    return [*rest, f"{_OVER}={json.dumps(over)}"]


def _is_list(word: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(word).is_sweep_override())
    except HydraException:
        return False  # Hydra itself will say what is wrong with it
