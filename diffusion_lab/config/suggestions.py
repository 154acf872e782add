"""What Hydra refuses, said so that one can act on it: with the nearest right name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf


def closest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
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


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean a, b?` or, where nothing is near, the known names if they are few."""
    names = list(known)
    found = closest(name, names)
    if found:
        return f"; did you mean {' or '.join(found)}?"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= 15 else ""


def flat_keys(node: Any, prefix: str = "") -> list[str]:
    """All key paths of a config or dict, inner nodes and leaves."""
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(plain, dict):
        return []
    keys = []
    for name, value in plain.items():
        key = str(name)
        path = f"{prefix}.{key}" if prefix else key
        keys += [path, *flat_keys(value, path)]
    return [key for key in keys if not key.endswith("_") and not key.startswith("hydra.")]


def explain(error: Exception, command: str, overrides: Sequence[str]) -> str:
    """One or more sentences for an error of Hydra or OmegaConf.

    Args:
        error: What was raised while composing.
        command: The command, whose keys are the known ones.
        overrides: What was typed.
    """
    text = str(error)
    for pattern, answer in _ANSWERS:
        match = re.search(pattern, text, re.DOTALL)
        if match:
            sentence = answer(match, command, overrides)
            if sentence:
                return sentence
    cause = error.__cause__
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{first}\n{cause}" if cause and str(cause) not in text else text.strip()


def known_keys(command: str, overrides: Sequence[str] = ()) -> list[str]:
    """Keys of a command's config, with the typed choices of groups where they compose."""
    return flat_keys(_with_choices(command, tuple(overrides)))


@lru_cache(maxsize=4)
def _with_choices(command: str, overrides: tuple[str, ...]) -> DictConfig:
    """A command's config with the typed choices of groups alone, or without where they fail."""
    from hydra.errors import HydraException

    from diffusion_lab.config.composing import raw
    from diffusion_lab.config.groups import groups
    from diffusion_lab.config.words import key_of

    known = groups()
    chosen = [word for word in overrides if key_of(word).split("@")[0] in known and "," not in word]
    for attempt in (chosen, []):
        try:
            return raw(command, attempt)
        except HydraException:
            continue
    return OmegaConf.create({})


def unknown_key(key: str, command: str, overrides: Sequence[str]) -> str:
    """The sentence for a key that the config does not have."""
    from diffusion_lab.config.groups import groups
    from diffusion_lab.config.signatures import signature

    target = taker(key, command, overrides)
    if target:
        return f"{key} is not in the yaml, but {target} takes it: write +{key}=... to set it"
    keys = known_keys(command, overrides)
    parent = key.rpartition(".")[0]
    node = _target_of(command, overrides, parent) if parent else None
    taken = signature(node) if node else None
    if taken and not taken.open:
        keys += [f"{parent}.{name}" for name in taken.annotations]
    return f"unknown key {key}{nearest(key, [*keys, *groups()])}"


def taker(key: str, command: str, overrides: Sequence[str]) -> str | None:
    """The class whose constructor names a key that its yaml does not, or None."""
    from diffusion_lab.config.signatures import signature

    parent, _, last = key.rpartition(".")
    target = _target_of(command, overrides, parent) if parent else None
    taken = signature(target) if target else None
    return target if taken and last in taken.annotations else None


def _target_of(command: str, overrides: Sequence[str], path: str) -> str | None:
    """The `_target_` of the node at a key path, or None."""
    try:
        node = OmegaConf.select(_with_choices(command, tuple(overrides)), path)
    except ValueError:
        return None
    return (
        str(node._get_node("_target_")) if OmegaConf.is_dict(node) and "_target_" in node else None
    )


def _not_overridable(match: re.Match[str], command: str, overrides: Sequence[str]) -> str:
    return unknown_key(match[1], command, overrides)


def _no_group(match: re.Match[str], command: str, overrides: Sequence[str]) -> str:
    from diffusion_lab.config.groups import groups

    group = match[1]
    keys = [*groups(), *known_keys(command)]
    if group in groups():
        return f"{command} does not use the group {group}"
    return f"unknown key {group}{nearest(group, keys)}"


def _no_option(match: re.Match[str], command: str, overrides: Sequence[str]) -> str:
    from diffusion_lab.config.groups import options

    group, _, option = match[1].rpartition("/")
    extra = _PLUGINS.get(match[1])
    if extra:
        return f"{match[1]} needs a plugin of Hydra's: pip install 'diffusion_lab[{extra}]'"
    names = options(group)
    if group == "budget":
        names = ["auto", *names]
    if not names:
        return ""
    found = closest(option, names)
    hint = f"; did you mean {' or '.join(found)}?" if found else "."
    return f"{group}={option}: no such choice{hint} The choices: {', '.join(names)}"


def _unreadable(match: re.Match[str], command: str, overrides: Sequence[str]) -> str:
    word = match[1] if match.lastindex else ""
    word = next((text for text in overrides if text and text in match.string), word)
    if not word:  # the parser names no more than the piece it stumbled on
        word = next((text for text in overrides if not _parses(text)), "")
    key, equals, value = word.partition("=")
    if equals and "=" in value and value[:1] + value[-1:] == "[]":
        entries = ",".join(f'"{entry.strip()}"' for entry in value[1:-1].split(","))
        return f"cannot read {word!r}: put each entry of the list in quotes, '{key}=[{entries}]'"
    if not equals:
        return f"cannot read {word!r}: write key=value, e.g. {key or 'seed'}=1 (flags: see --help)"
    return f"cannot read {word!r}: put the value in quotes, \"{key}='{value}'\""


def _parses(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _ambiguous_sweep(match: re.Match[str], command: str, overrides: Sequence[str]) -> str:
    words = [w for w in overrides if "," in w and "[" not in w and "'" not in w and "=" in w]
    word = words[0] if words else match[0]
    key, _, value = word.partition("=")
    return f"{word} is several values: add -m for one run each, or write a list, {key}=[{value}]"


_PLUGINS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/sweeper/optuna": "optuna",
    "hydra/sweeper/sampler/tpe": "optuna",
}
"""Options that come with an extra of this package, and which."""

_ANSWERS = [
    (r"Ambiguous value for argument", _ambiguous_sweep),
    (r"Could not override '([^']+)'\. ?\n?No match in the defaults list", _no_group),
    (r"Could not override '([^']+)'", _not_overridable),
    (r"Could not delete\. ?'?([^'\s]+)'?", _not_overridable),
    (r"Could not find '([^']+)'", _no_option),
    (r"In '[^']+': Could not find '([^']+)'", _no_option),
    (r"Error when parsing index: \d+, string: (\S+)", _unreadable),
    (r"Error parsing override '([^']+)'", _unreadable),
    (
        r"(?:mismatched input|no viable alternative|token recognition error|extraneous input)",
        _unreadable,
    ),
]
