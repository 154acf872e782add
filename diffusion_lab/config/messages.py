"""What is mistyped, said so that one can act on it: with the nearest right name.

Where Hydra cannot compose, its words are not read. What was typed is looked through again, by the
grammar, by the files of `conf/` and by the config that the choices alone compose to; so one
message reports all of it, and does not depend on how Hydra words its errors.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from diffusion_lab.config.checkpoint_defaults import OPTION
from diffusion_lab.config.composing import CONF, groups, options, raw
from diffusion_lab.config.signatures import signature
from diffusion_lab.config.words import key_of, read_override, swept_values

_PLUGINS = {
    **dict.fromkeys(("joblib",), ("hydra_joblib_launcher", "joblib")),
    **dict.fromkeys(
        ("submitit", "slurm", "submitit_local", "submitit_slurm"),
        ("hydra_submitit_launcher", "slurm"),
    ),
    **dict.fromkeys(("optuna", "tpe"), ("hydra_optuna_sweeper", "optuna")),
}
"""Choices of `sweep` and of Hydra's own groups -> the plugin behind it, and our extra with it."""


def nearest(name: str, known: Iterable[str], few: int = 15) -> str:
    """`; did you mean a or b?` or, where nothing is near, the known names if they are `few`."""
    names = list(known)
    found = _closest(name, names)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= few else ""


def _closest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names like this one, best first; the last part of a dotted name counts most."""
    names = list(dict.fromkeys(known))
    tail = name.rsplit(".", 1)[-1]

    def likeness(other: str) -> float:
        whole = difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()
        last = other.rsplit(".", 1)[-1]
        part = difflib.SequenceMatcher(None, tail.lower(), last.lower()).ratio()
        return max(whole, 0.4 * whole + 0.6 * part)

    ranked = sorted(((likeness(other), other) for other in names), key=lambda p: (-p[0], len(p[1])))
    good = [other for score, other in ranked if score >= 0.6][:limit]
    best = ranked[0][0] if ranked else 0.0
    return [other for score, other in ranked[:limit] if other in good and score >= best - 0.15]


def explain(
    error: Exception,
    command: str,
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    own_files: bool = False,
) -> str:
    """What to say of an error of Hydra's or OmegaConf's: what was mistyped, else its own text.

    Args:
        error: What was raised while composing.
        command: The command, whose keys are the known ones.
        overrides: What was typed, as Hydra saw it.
        multirun: Whether several values were allowed.
        own_files: Whether options and keys may stand in files that are not of `conf/`.
    """
    found = mistakes(command, overrides, multirun=multirun, own_files=own_files)
    if found:
        return "\n".join(found)
    text, cause = str(error).strip() or type(error).__name__, error.__cause__
    return f"{text.splitlines()[0]}\n{cause}" if cause and str(cause) not in text else text


def mistakes(
    command: str,
    overrides: Sequence[str],
    *,
    multirun: bool = False,
    own_files: bool = False,
    stored: bool = False,
) -> list[str]:
    """One sentence for each word that cannot be meant.

    `+key=` and `++key=` too where no constructor takes the key: Hydra itself advises `+` for a
    mistyped key, which then silently does nothing.

    Args:
        command: The command, whose keys are the known ones.
        overrides: What was typed.
        multirun: Whether several values are allowed.
        own_files: Whether keys and options may stand in yaml files that are not of `conf/`.
        stored: Whether a checkpoint may hold further keys, which are not known yet. Where keys may
            be unknown, those of words with a plus alone are judged.
    """
    free = ("hydra.", "hydra/", *_added_nodes(overrides))
    found: list[str] = []
    for word in overrides:
        key, added = key_of(word), word.startswith("+")
        if read_override(word) is None:
            found.append(_unreadable(word))
        elif swept_values(word) is not None and not multirun:
            is_group = key.partition("@")[0] in groups()
            a_list = "" if is_group else f", or write a list, {key}=[{word.partition('=')[2]}]"
            found.append(f"{word} is several values: add -m for one run each{a_list}")
        elif plugin := _missing_plugin(word):
            found.append(plugin)
        elif key.partition("@")[0] in groups():
            wrong = [] if own_files else wrong_options(word)
            found += wrong or ([] if own_files or stored else _misplaced(command, word, overrides))
        elif f"{key}.".startswith(free) or ((own_files or stored) and not added):
            continue
        elif key not in known_keys(command, overrides) and not (
            added and _taker(key, command, overrides)
        ):
            found.append(_unknown_key(key, command, overrides))
    return found


def _added_nodes(overrides: Sequence[str]) -> Iterator[str]:
    """Nodes that are added whole, such as a callback of one's own: they bring a `_target_`."""
    for word in overrides:
        if word.startswith("+") and "_target_" in word:
            yield key_of(word).removesuffix("_target_").rstrip(".") + "."


def wrong_options(word: str) -> list[str]:
    """A sentence for each option in `group=option` that the group does not have."""
    group, value = key_of(word).partition("@")[0], word.partition("=")[2]
    names = ["auto", *options(group)] if group == "budget" else options(group)
    if not names or word.startswith("~"):
        return []
    typed = [
        option for option in swept_values(word) or [value] if re.fullmatch(r"[\w./-]+", option)
    ]
    known = (*names, "null", OPTION)
    return [
        f"{group}={option}: no such choice{nearest(option, names, few=0) or '.'} The choices: "
        + ", ".join(names)
        for option in typed
        if option not in known and not (CONF / group / f"{option}.yaml").exists()
    ]


def _misplaced(command: str, word: str, overrides: Sequence[str]) -> list[str]:
    """A sentence for a choice of a group in a place that takes none."""
    key, places = key_of(word), _composed(command, tuple(overrides))[1]
    if not places or key in places or word.startswith("+"):
        return []
    same = [place for place in places if place.partition("@")[0] == key.partition("@")[0]]
    where = f"; write {' or '.join(f'{place}=' for place in same)}" if same else ""
    return [f"{command} does not use the group {key}{where}"]


def _missing_plugin(word: str) -> str | None:
    """What to install for a choice that needs a plugin of Hydra's which is not there."""
    key, option = key_of(word), word.partition("=")[2]
    if (key != "sweep" and not key.startswith("hydra/")) or option not in _PLUGINS:
        return None
    plugin, extra = _PLUGINS[option]
    try:
        spec = importlib.util.find_spec(f"hydra_plugins.{plugin}")
    except ModuleNotFoundError:
        spec = None
    need = f"{word} needs a plugin of Hydra's: pip install 'diffusion_lab[{extra}]'"
    return None if spec else need


def _unreadable(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and "=" in value and value[:1] + value[-1:] == "[]":
        entries = ",".join(f'"{entry.strip()}"' for entry in value[1:-1].split(","))
        return f"cannot read {word!r}: put each entry of the list in quotes, '{key}=[{entries}]'"
    if not equals:
        return f"cannot read {word!r}: write key=value, e.g. {key or 'seed'}=1 (flags: see --help)"
    return f"cannot read {word!r}: put the value in quotes, \"{key}='{value}'\""


@lru_cache(maxsize=4)
def _composed(command: str, overrides: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
    """A command's config with the typed choices of groups, and the places of its groups.

    Choices that do not compose are left out.
    """
    named = [word for word in overrides if key_of(word).partition("@")[0] in groups()]
    chosen = [word for word in named if "," not in word and not wrong_options(word)]
    for attempt in (chosen, [word for word in chosen if "@" not in word], []):
        try:
            cfg = raw(command, attempt, hydra=True)
        except HydraException:
            continue
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
        return plain, [str(key) for key in plain.pop("hydra")["runtime"]["choices"]]
    return {}, []


def known_keys(command: str, overrides: Sequence[str] = ()) -> list[str]:
    """Keys of a command's config with the typed choices of groups, inner nodes and leaves."""
    return list(_key_paths(_composed(command, tuple(overrides))[0]))


def _key_paths(plain: Any, prefix: str = "") -> Iterator[str]:
    for name, value in plain.items() if isinstance(plain, dict) else ():
        if not str(name).endswith("_"):
            yield f"{prefix}{name}"
        yield from _key_paths(value, f"{prefix}{name}.")


def _unknown_key(key: str, command: str, overrides: Sequence[str]) -> str:
    """The sentence for a key that the config does not have."""
    if target := _taker(key, command, overrides):
        return f"{key} is not in the yaml, but {target} takes it: write +{key}=... to set it"
    known = [*known_keys(command, overrides), *groups()]
    parent = key.rpartition(".")[0]
    taken = signature(_class_at(command, overrides, parent))
    if taken and not taken.open:
        known += [f"{parent}.{name}" for name in taken.annotations]
    return f"unknown key {key}{nearest(key, known)}"


def _taker(key: str, command: str, overrides: Sequence[str]) -> str | None:
    """The class whose constructor names a key that its yaml does not, or None."""
    parent, _, last = key.rpartition(".")
    target = _class_at(command, overrides, parent)
    taken = signature(target)
    return target if taken and last in taken.annotations else None


def _class_at(command: str, overrides: Sequence[str], path: str) -> str:
    """The `_target_` of the node at a key path; nothing where there is none."""
    node: Any = _composed(command, tuple(overrides))[0]
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return str(node.get("_target_", "")) if isinstance(node, dict) else ""
