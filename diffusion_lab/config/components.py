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
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
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
"""Node of a training's configuration -> the groups of `conf/` whose classes may stand in it."""

_TARGET = re.compile(r"^[\s-]*_target_:\s*([\w.]+)\s*(?:#.*)?$", re.MULTILINE)
_KEYS = frozenset({"_target_", "_partial_"})
"""Of Hydra's own keys, those that a stored node may have."""


@cache
def known_targets(role: str) -> frozenset[str]:
    """Dotted names that may be a `_target_` in the node of a role; none of an unknown role."""
    files = (file for group in ROLES.get(role, ()) for file in (CONF / group).rglob("*.yaml"))
    return frozenset(name for file in files for name in _TARGET.findall(file.read_text("utf-8")))


def stored_errors(config: Mapping[str, Any], trust: Sequence[str] = ()) -> list[str]:
    """What a stored configuration holds that may not stand in one, one sentence each.

    Args:
        config: Node -> plain data, as in `checkpoint["diffusion_lab"]["config"]`.
        trust: Packages that the person has named now.
    """
    return [text for role, node in config.items() for text in _errors(node, str(role), role, trust)]


def _errors(node: Any, path: str, role: str, trust: Sequence[str]) -> Iterator[str]:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and not _is_known(target, role, trust):
            root = str(target).split(".")[0]
            remedy = (
                f"trust=[{root}] allows the classes of a package that you know"
                if root not in ("", "diffusion_lab")
                else "only classes that conf/ names may stand there"
            )
            yield f"{path}._target_={target} is no known {role} of a stored configuration: {remedy}"
        for key, value in node.items():
            if not isinstance(key, str) or (re.fullmatch(r"_\w+_", key) and key not in _KEYS):
                yield f"{path}.{key} may not stand in a stored configuration"
            yield from _errors(value, f"{path}.{key}", role, trust)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _errors(value, f"{path}[{index}]", role, trust)
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node!r}: a stored configuration is plain data, nothing in it is resolved"
    elif not isinstance(node, str | int | float | bool | None):
        yield f"{path} holds a {type(node).__name__}, which is no plain data"


def _is_known(target: Any, role: str, trust: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    return target in known_targets(role) or any(target.startswith(f"{name}.") for name in trust)


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
    made = _found(node["_target_"], role)
    return partial(made, **arguments) if node.get("_partial_") else made(**arguments)


def _found(target: str, role: str) -> Any:
    """The class (or, named in `conf/` itself, the function) behind a dotted name."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{role}._target_={target} cannot be imported: {error}") from None
    if target in known_targets(role):
        return found
    if not inspect.isclass(found) or found.__module__.split(".")[0] != target.split(".")[0]:
        raise ConfigError(f"{role}._target_={target} is no class of {target.split('.')[0]}")
    return found
