"""Objects from a configuration that was stored: plain data, from the classes `conf/` names.

What a person types may name any class of the trusted packages (`building`). What a file says may
name those alone that the yaml files of `conf/` name for the same role: a network where a network
stands, a sampler where a sampler stands. Nothing in it is resolved, and trust is what the person
types now. Neither Hydra nor OmegaConf is imported here.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from diffusion_lab.config.groups import CONF
from diffusion_lab.errors import ConfigError

ROLES = {
    "denoiser": ("denoiser", "conditions", "block", "down", "up", "norm", "activation"),
    "schedule": ("schedule",),
    "parameterization": ("parameterization",),
    "objective": ("objective",),
    "sampler": ("sampler", "grid", "frame"),
    "guidance": ("guidance",),
    "constraint": ("constraint",),
    "data": ("data",),
    "model": ("model", "guidance"),
    "optimizer": ("optimizer",),
    "lr_scheduler": ("lr_scheduler",),
    "trainer": ("trainer",),
    "logger": ("logger",),
    "callbacks": (
        *("callbacks", "experiment", "sweep", "sampler", "grid", "frame", "guidance"),
        "constraint",
    ),
}
"""Node of a training's configuration -> the groups of `conf/` whose classes may stand in it.

The node itself, where it has a class, is one of the first group; the others are for what is in it.
"""

_TARGET = re.compile(r"^[ -]*_target_:[ ]*([\w.]+)[ ]*(?:#.*)?$", re.MULTILINE)
_OWN_TARGET = re.compile(r"^_target_:[ ]*([\w.]+)[ ]*(?:#.*)?$", re.MULTILINE)
_KEYS = frozenset({"_target_", "_partial_"})
"""Of Hydra's own keys, those that a stored node may have."""
_NO_KEYS = frozenset({"defaults"})
"""Keys by which a node would choose options of other groups."""


@cache
def known_targets(role: str, *, own: bool = False) -> frozenset[str]:
    """Dotted names that may be a `_target_` in the node of a role; none of an unknown role.

    Args:
        role: A key of `ROLES`.
        own: Only those of the node itself, not of what is in it.
    """
    groups, pattern = ROLES.get(role, ()), _OWN_TARGET if own else _TARGET
    files = [file for group in groups[: 1 if own else None] for file in _files(group)]
    return frozenset(name for file in files for name in pattern.findall(file.read_text("utf-8")))


def _files(group: str) -> list[Path]:
    return sorted((CONF / group).rglob("*.yaml"))


def stored_errors(config: Mapping[str, Any], trust: Sequence[str] = ()) -> list[str]:
    """What a stored configuration holds that may not stand in one, one sentence each.

    Args:
        config: Node -> plain data, as in `checkpoint["diffusion_lab"]["config"]`.
        trust: Packages that the person has named now.
    """
    if not isinstance(config, Mapping):
        return [f"the configuration is a {type(config).__name__}, not named nodes"]
    found = [f"{path} is no node of a configuration" for path in _no_nodes(config)]
    return found + [
        text for role, node in config.items() for text in _errors(node, str(role), role, trust)
    ]


def refuse_stored(
    config: Mapping[str, Any], names: Iterable[str], trust: Sequence[str], file: object
) -> None:
    """Refuse what a file's configuration may not hold.

    Args:
        config: As in `stored_errors`.
        names: The nodes that are looked at: those that will be used.
        trust: Packages that the person has named now.
        file: Where it comes from, for the message.

    Raises:
        ConfigError: Naming everything that may not stand there.
    """
    used = {name: config[name] for name in names if name in config}
    errors = stored_errors(used, trust)
    if errors:
        raise ConfigError(f"ckpt={file} cannot be used:\n" + "\n".join(errors))


def _no_nodes(config: Mapping[str, Any]) -> Iterator[str]:
    """Paths where a node has to stand and something else does."""
    nodes = {role: config[role] for role in ROLES if role in config}
    callbacks = nodes.get("callbacks")
    if isinstance(callbacks, Mapping):
        nodes |= {f"callbacks.{name}": node for name, node in callbacks.items()}
    return (path for path, node in nodes.items() if not isinstance(node, Mapping | None))


def _errors(node: Any, path: str, role: str, trust: Sequence[str]) -> Iterator[str]:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if "_target_" in node and not _is_known(target, role, trust, own=path == role):
            root = re.match(r"\w*", str(target))[0]  # type: ignore[index]
            remedy = (
                f"trust=[{root}] allows the classes of a package that you know"
                if root not in ("", "diffusion_lab")
                else "only classes that conf/ names may stand there"
            )
            yield f"{path}._target_={target} is no known {role} of a stored configuration: {remedy}"
        elif "_target_" in node and (text := _no_class(str(target), role)):
            yield f"{path}._target_={target} {text}"
        for key, value in node.items():
            if not _is_key(key):
                yield f"{path}.{key} may not stand in a stored configuration"
            yield from _errors(value, f"{path}.{key}", role, trust)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _errors(value, f"{path}[{index}]", role, trust)
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node!r}: a stored configuration is plain data, nothing in it is resolved"
    elif not isinstance(node, str | int | float | bool | None):
        yield f"{path} holds a {type(node).__name__}, which is no plain data"


def _is_key(key: Any) -> bool:
    """Whether a key is one name: a dot would make it a path, `_call_` an order to Hydra."""
    if not isinstance(key, str) or not re.fullmatch(r"[\w-]+", key) or key in _NO_KEYS:
        return False
    return key in _KEYS or not re.fullmatch(r"_\w+_", key)


def _is_known(target: Any, role: str, trust: Sequence[str], *, own: bool) -> bool:
    if not isinstance(target, str):
        return False
    known = known_targets(role, own=own)
    return target in known or any(target.startswith(f"{name}.") for name in trust)


def build(node: Mapping[str, Any] | None, role: str, trust: Sequence[str] = ()) -> Any:
    """Build what a stored node describes.

    Args:
        node: Plain data with `_target_`; None or an empty one gives None.
        role: A key of `ROLES`: which classes may be built.
        trust: Packages that the person has named now, whose classes may be built too.

    Returns:
        The object, or a `functools.partial` where the node says `_partial_: true`.

    Raises:
        ConfigError: A class that is not of this role, or does not exist.
        Exception: Whatever the constructor raises (a ValueError for a value out of range).
    """
    if not node:
        return None
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{role}={node!r:.60} names no class")
    errors = list(_errors(node, role, role, trust))
    if errors:
        raise ConfigError("\n".join(errors))
    return _built(node, role, trust)


def _built(node: Any, role: str, trust: Sequence[str]) -> Any:
    if isinstance(node, list | tuple):
        return [_built(value, role, trust) for value in node]
    if not isinstance(node, Mapping):
        return node
    arguments = {k: _built(value, role, trust) for k, value in node.items() if k not in _KEYS}
    if "_target_" not in node:
        return arguments
    try:
        made = _found(node["_target_"])
    except (ImportError, AttributeError, ValueError) as error:
        target = node["_target_"]
        raise ConfigError(f"{role}._target_={target} cannot be imported: {error}") from None
    if getattr(made, "takes_trust", False):
        arguments["trust"] = tuple(trust)
    return partial(made, **arguments) if node.get("_partial_") else made(**arguments)


def _no_class(target: str, role: str) -> str | None:
    """Why a name of a trusted package is none that a file may have called; None if it is a class.

    What `conf/` itself names, functions among them, is looked at only when it is built.
    """
    if target in known_targets(role):
        return None
    try:
        found = _found(target)
    except (ImportError, AttributeError, ValueError) as error:
        return f"cannot be imported: {error}"
    root = target.split(".")[0]
    is_class = inspect.isclass(found) and found.__module__.split(".")[0] == root
    return None if is_class else f"is no class of {root}"


def _found(target: str) -> Any:
    """What a dotted name stands for."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)
