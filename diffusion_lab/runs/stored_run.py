"""The words that give a stored configuration again.

A run goes on with the configuration in its checkpoint: the options that it chose, then every value
that these do not give. What follows from where a run lies (`${run_dir}`, `${paths...}`) is derived
anew, Hydra's own node and `trust` are never taken over, and a class has to be one that `conf/`
names for its role, or of a package that is trusted by what is typed now. Whether a run goes online
is not taken over either: that is said by who starts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.building import stored_errors
from diffusion_lab.config.composing import CONF, groups, options, raw, settle
from diffusion_lab.config.words import key_of, quoted, value_of
from diffusion_lab.errors import ConfigError

_NOT_TAKEN = frozenset({"run_dir", "resume", "init_from", "paths", "hydra", "sweep", "trust"})
_DERIVED = frozenset({"local", "paths", "debug", "experiment/budget", "sweep"})
"""Groups that follow from others or from the machine."""
_GROUP = re.compile(r"[\w/]+(@[\w.]+)?")
_PLACE = re.compile(r"\$\{(run_dir|paths\.\w+)\}")


class _Derived(str):
    """An interpolation of ours, which stands in a word as it is."""

    __slots__ = ()


_PLACES = {
    "run_dir": _Derived("${run_dir}"),
    "default_root_dir": _Derived("${run_dir}"),
    "data_dir": _Derived("${paths.data_dir}"),
    "beside": _Derived("${paths.data_dir}"),
}
"""Arguments that say where files are written: what they are in a run, whatever a file says."""
_ANEW = frozenset({"data.cache", "logger.offline"})
"""Keys of which the stored value is not taken over."""


def words_of(
    config: Mapping[str, Any], choices: Mapping[str, str], trust: Sequence[str] = ()
) -> list[str]:
    """Overrides of `train` that compose to a stored configuration.

    Args:
        config: The resolved configuration of the run.
        choices: Its chosen options by group; options that no longer exist are left out.
        trust: Packages that are named now.

    Raises:
        ConfigError: The configuration names what may not be built, or cannot be composed.
    """
    taken = {str(key): value for key, value in config.items() if key not in _NOT_TAKEN}
    errors = stored_errors(taken, trust)
    if errors:
        raise ConfigError("this run cannot be resumed:\n" + "\n".join(errors))
    chosen = _choices(taken, choices)
    try:
        base = settle(raw("train", [*chosen, "run_dir=stored"]))
    except (HydraException, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"this run cannot be resumed: its choices do not fit: {reason}") from None
    known: Any = OmegaConf.to_container(base, resolve=False)
    if not _same_class(known.get("logger"), taken.get("logger")):
        taken.pop("logger", None)
    changes = [
        word
        for key, node in known.items()
        if key in taken
        for word in _changes(key, node, taken[key], base)
    ]
    return [*chosen, *changes]


def _same_class(base: Any, stored: Any) -> bool:
    target = stored.get("_target_") if isinstance(stored, Mapping) else None
    return isinstance(base, Mapping) and base.get("_target_") == target


def _choices(config: Mapping[str, Any], choices: Mapping[str, str]) -> list[str]:
    """Words for the options of a run: those it chose, else those with the same class."""
    words = {
        group: option
        for group, option in choices.items()
        if _GROUP.fullmatch(group)
        and group.split("@")[0] in set(groups()) - _DERIVED
        and option in options(group.split("@")[0])
    }
    for name, node in config.items():
        target = node.get("_target_") if isinstance(node, Mapping) else None
        if name in groups() and name not in words and target:
            same = [option for option in options(name) if _target_of(name, option) == target]
            words |= {name: same[0]} if same else {}
    return [f"{group}={option}" for group, option in words.items()]


def _target_of(group: str, option: str) -> str | None:
    found = re.search(r"^_target_: *(\S+)", (CONF / group / f"{option}.yaml").read_text(), re.M)
    return found[1] if found else None


def refuse_other_data(config: Mapping[str, Any], words: Sequence[str]) -> None:
    """Refuse to read other data than the run did, silently: their place has to be typed.

    A place that a file names is not written to, and reading data may mean fetching them.

    Args:
        config: The resolved configuration of the run.
        words: What is typed now.

    Raises:
        ConfigError: The run read its data from a folder that is there, and not the one meant now.
    """
    data, paths = config.get("data"), config.get("paths")
    if not isinstance(data, Mapping) or "data_dir" not in data or not isinstance(paths, Mapping):
        return
    place = paths.get("data_dir")
    if not isinstance(place, str) or value_of("paths.data_dir", words) is not None:
        return
    now = str(raw("train", ["run_dir=stored"]).paths.data_dir)
    if place != now and Path(place).expanduser().is_dir():
        raise ConfigError(
            f"this run read its data from {place}, and now they would come from {now}: give "
            f"{quoted('paths.data_dir', place)} if you know that folder, else paths.data_dir={now}"
        )


def _changes(path: str, base: Any, stored: Any, cfg: DictConfig) -> Iterator[str]:
    """Words that turn a composed node into the stored one.

    Args:
        path: Where it stands.
        base: What it was composed to, interpolations as they are.
        stored: What it is to be.
        cfg: All that was composed, by which interpolations are resolved.
    """
    if not isinstance(base, Mapping):
        if not _is_place(base) and _value(path, base, cfg) != stored:
            yield f"{'++' if isinstance(stored, Mapping) else ''}{path}={literal(stored)}"
        return
    if not isinstance(stored, Mapping):
        yield f"{path}={literal(stored)}"
        return
    for key, child in base.items():
        if key in _PLACES or f"{path}.{key}" in _ANEW:
            continue
        if key in stored:
            yield from _changes(f"{path}.{key}", child, stored[key], cfg)
        elif not _is_place(child) and _value(f"{path}.{key}", child, cfg) is not None:
            yield f"~{path}.{key}"
    for key in stored:
        if key not in base and f"{path}.{key}" not in _ANEW:
            yield f"++{path}.{_name(key)}={literal(_PLACES.get(key, stored[key]))}"


def _is_place(node: Any) -> bool:
    return isinstance(node, str) and bool(_PLACE.search(node))


def _value(path: str, base: Any, cfg: DictConfig) -> Any:
    if base == "???":
        return base
    found = OmegaConf.select(cfg, path)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def literal(value: Any) -> str:
    """A plain value as Hydra's grammar reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        placed = ((key, _PLACES.get(key, child)) for key, child in value.items())
        inner = ",".join(f"{_name(key)}:{literal(child)}" for key, child in placed)
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    if isinstance(value, _Derived):
        return str(value)
    if isinstance(value, str):
        escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'")
        return f"'{escaped}'"
    return repr(value)


def _name(key: Any) -> str:
    text = str(key)
    if not re.fullmatch(r"[\w-]+", text):
        raise ConfigError(f"a stored configuration has the key {text!r}, which cannot be typed")
    return text


def typed_over(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """Words of before whose keys are not typed now, then those typed now."""
    typed = {key_of(word) for word in now}
    return [*(word for word in before if key_of(word) not in typed), *now]
