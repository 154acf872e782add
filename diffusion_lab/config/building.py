"""Objects from configurations: from what is typed, and, with far less allowed, from what is stored.

What a person types may name a class or a function that was defined in this package, in
`torch.optim`, in `lightning`, or in a package that is trusted by name (`trust=[my_package]`);
`instantiate` builds it. What a file says may name those alone that the yaml files of `conf/` name
for the same role: a network where a network stands, a sampler where a sampler stands. Nothing in it
is resolved, and trust is what the person types now; `build` builds it, and needs neither Hydra nor
OmegaConf.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from diffusion_lab.config.composing import CONF, plain_data
from diffusion_lab.config.signatures import HYDRA_KEYS
from diffusion_lab.errors import ArgumentError, ConfigError

TRUSTED = ("diffusion_lab", "torch.optim", "lightning")
"""Packages whose classes and functions a `_target_` may name that is typed."""
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
_STORED_KEYS = frozenset({"_target_", "_partial_"})
"""Of Hydra's own keys, those that a stored node may have."""


def nodes(tree: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(key path, node) of everything in plain data that has a `_target_`, outermost first."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield path, tree
        for key, child in tree.items():
            yield from nodes(child, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list | tuple):
        for index, child in enumerate(tree):
            yield from nodes(child, f"{path}[{index}]")


def is_trusted(target: str, trust: Sequence[str] = ()) -> bool:
    """Whether a dotted name lies in a trusted package."""
    return any(target == name or target.startswith(name + ".") for name in (*TRUSTED, *trust))


def untrusted(node: Any, trust: Sequence[str] = (), path: str = "") -> dict[str, str]:
    """Key path -> sentence of every `_target_` outside the allow-list; needs no import."""
    targets = {f"{at or 'node'}._target_": str(n["_target_"]) for at, n in nodes(node, path)}
    return {
        key: f"{key}={target} is not of a trusted package ({', '.join((*TRUSTED, *trust))}); "
        f"trust=[{target.split('.')[0]}] adds one you know"
        for key, target in targets.items()
        if not is_trusted(target, trust)
    }


def instantiate(node: Any, *, trust: Sequence[str] = (), path: str = "", **extra: Any) -> Any:
    """Build what a typed config node describes, the nodes inside it first.

    Args:
        node: A config or dict with `_target_`; None or an empty node gives None.
        trust: Further packages that a `_target_` may name.
        path: Where the node stands in its config, for errors.
        extra: Further keyword arguments of the constructor, objects among them.

    Returns:
        The object, or a `functools.partial` where the node says `_partial_: true`. Lists and dicts
        inside are plain ones.

    Raises:
        ConfigError: A `_target_` outside the allow-list, or one that does not exist.
        ArgumentError: An argument out of range; its name is the key's path.
        Exception: Whatever else the constructor raises.
    """
    plain = node if isinstance(node, dict | None) else plain_data(node)
    if not plain:
        return None
    errors = untrusted(plain, trust, path)
    if errors:
        raise ConfigError("\n".join(errors.values()))
    for where, part in nodes(plain, path):
        _validate_target(where, str(part["_target_"]), trust)
    return _built({**plain, **extra}, path, trust)


def _validate_target(path: str, target: str, trust: Sequence[str]) -> None:
    """Reject a trusted path to a foreign thing, as in `lightning.x.os.system`."""
    found = _found(target, path or "node")
    if not (inspect.isclass(found) or inspect.isroutine(found)) or not is_trusted(
        getattr(found, "__module__", None) or "", trust
    ):
        raise ConfigError(f"{path or 'node'}._target_={target} is no class of a trusted package")


def _found(target: str, path: str) -> Any:
    """What a dotted name stands for."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a package does when it is imported
        raise ConfigError(f"{path}._target_={target} cannot be imported: {error}") from None


def _built(value: Any, path: str, trust: Sequence[str]) -> Any:
    """What plain data stand for: an object for a node, else themselves with the objects inside."""
    if isinstance(value, list | tuple):
        return [_built(entry, f"{path}[{index}]", trust) for index, entry in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    arguments = {
        key: _built(child, f"{path}.{key}" if path else str(key), trust)
        for key, child in value.items()
        if key not in HYDRA_KEYS
    }
    if "_target_" not in value:
        return arguments
    made = _found(value["_target_"], path or "node")
    if getattr(made, "takes_trust", False):
        arguments["trust"] = tuple(trust)
    call = partial(made, *_built(value.get("_args_", ()), path, trust), **arguments)
    if value.get("_partial_"):
        return call
    try:
        return call()
    except ArgumentError as error:
        name = f"{path}.{error.name}" if path else error.name
        raise ArgumentError(name, error.value, error.rule) from None


@cache
def known_targets(role: str, *, own: bool = False) -> frozenset[str]:
    """Dotted names that may be a `_target_` in the node of a role; none of an unknown role.

    Args:
        role: A key of `ROLES`.
        own: Only those of the node itself, not of what is in it.
    """
    groups, pattern = ROLES.get(role, ()), _OWN_TARGET if own else _TARGET
    folders = [CONF / group for group in groups[: 1 if own else None]]
    files = [file for folder in folders for file in folder.rglob("*.yaml")]
    return frozenset(name for file in files for name in pattern.findall(file.read_text("utf-8")))


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
        text
        for role, node in config.items()
        for text in _stored_errors(node, str(role), role, trust)
    ]


def validate_stored(
    config: Mapping[str, Any], names: Iterable[str], trust: Sequence[str], file: object
) -> None:
    """Reject what a file's configuration may not hold.

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


def _stored_errors(node: Any, path: str, role: str, trust: Sequence[str]) -> Iterator[str]:
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
        elif "_target_" in node:
            yield from _no_class(str(target), path, role)
        for key, value in node.items():
            if not _is_key(key):
                yield f"{path}.{key} may not stand in a stored configuration"
            yield from _stored_errors(value, f"{path}.{key}", role, trust)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _stored_errors(value, f"{path}[{index}]", role, trust)
    elif isinstance(node, str) and "${" in node:
        yield f"{path}={node!r}: a stored configuration is plain data, nothing in it is resolved"
    elif not isinstance(node, str | int | float | bool | None):
        yield f"{path} holds a {type(node).__name__}, which is no plain data"


def _is_key(key: Any) -> bool:
    """Whether a key is one name: a dot would make it a path, `_call_` an order to Hydra.

    `defaults` would choose options of other groups.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[\w-]+", key) or key == "defaults":
        return False
    return key in _STORED_KEYS or not re.fullmatch(r"_\w+_", key)


def _is_known(target: Any, role: str, trust: Sequence[str], *, own: bool) -> bool:
    if not isinstance(target, str):
        return False
    known = known_targets(role, own=own)
    return target in known or any(target.startswith(f"{name}.") for name in trust)


def _no_class(target: str, path: str, role: str) -> Iterator[str]:
    """Why a name of a trusted package is none that a file may have called; none if it is a class.

    What `conf/` itself names, functions among them, is looked at only when it is built.
    """
    if target in known_targets(role):
        return
    root = target.split(".")[0]
    try:
        found = _found(target, path)
    except ConfigError as error:
        yield str(error)
        return
    if not (inspect.isclass(found) and found.__module__.split(".")[0] == root):
        yield f"{path}._target_={target} is no class of {root}"


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
        Exception: Whatever the constructor raises (an ArgumentError for a value out of range).
    """
    if not node:
        return None
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{role}={node!r:.60} names no class")
    errors = list(_stored_errors(node, role, role, trust))
    if errors:
        raise ConfigError("\n".join(errors))
    return _built(node, role, trust)
