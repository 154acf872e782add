"""Instantiating config nodes, from an allow-list of packages.

A config that somebody typed may name a class or a function that was defined in this package, in
`torch.optim`, in `lightning`, or in a package that is trusted by name (`trust=[my_package]`). What
came out of a file may name far less, see `components`, and is checked by that before it gets here.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from diffusion_lab.config.signatures import HYDRA_KEYS
from diffusion_lab.errors import ArgumentError, ConfigError

TRUSTED = ("diffusion_lab", "torch.optim", "lightning")
"""Packages whose classes and functions a `_target_` may name."""


def targets(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(key path, `_target_`) of a node and all nodes under it; dicts, lists or their configs."""
    if isinstance(node, Mapping | DictConfig):
        if "_target_" in node:
            yield path, str(node["_target_"])
        for key in node:
            child = node._get_node(key) if isinstance(node, DictConfig) else node[key]
            yield from targets(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list | tuple | ListConfig):
        for index, child in enumerate(node):
            yield from targets(child, f"{path}[{index}]")


def is_trusted(target: str, trust: Sequence[str] = ()) -> bool:
    """Whether a dotted name lies in a trusted package."""
    return any(target == name or target.startswith(name + ".") for name in (*TRUSTED, *trust))


def untrusted(node: Any, trust: Sequence[str] = (), path: str = "") -> dict[str, str]:
    """Key path -> sentence of every `_target_` outside the allow-list; needs no import."""
    named = [(f"{where or 'node'}._target_", target) for where, target in targets(node, path)]
    return {
        key: f"{key}={target} is not of a trusted package ({', '.join((*TRUSTED, *trust))}); "
        f"trust=[{target.split('.')[0]}] adds one you know"
        for key, target in named
        if not is_trusted(target, trust)
    }


def instantiate(node: Any, *, trust: Sequence[str] = (), path: str = "", **extra: Any) -> Any:
    """Build what a config node describes, the nodes inside it first.

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
    if node is None or (isinstance(node, DictConfig) and node._is_none()) or not node:
        return None
    plain: Any = node
    if isinstance(node, DictConfig):
        plain = OmegaConf.to_container(node, resolve=True)
    faults = untrusted(plain, trust, path)
    if faults:
        raise ConfigError("\n".join(faults.values()))
    for where, target in targets(plain, path):
        _refuse_alias(where, target, trust)
    return _made({**plain, **extra}, path, trust)


def _made(value: Any, path: str, trust: Sequence[str]) -> Any:
    """What a value of a config stands for: an object for a node, else itself with those inside."""
    if isinstance(value, list):
        return [_made(entry, f"{path}[{index}]", trust) for index, entry in enumerate(value)]
    if not isinstance(value, dict):
        return value
    inner = {
        key: child
        if key in HYDRA_KEYS and key != "_args_"
        else _made(child, _at(path, str(key)), trust)
        for key, child in value.items()
    }
    return _called(inner, path, trust) if "_target_" in inner else inner


def _called(node: dict[str, Any], path: str, trust: Sequence[str]) -> Any:
    """Call the target of a node whose nodes are built."""
    from hydra.utils import instantiate as build

    # Handed to Hydra, objects would be copied; so it makes the call alone.
    call = build({"_target_": node["_target_"], "_partial_": True})
    arguments = {str(key): value for key, value in node.items() if key not in HYDRA_KEYS}
    if getattr(call.func, "takes_trust", False):
        arguments["trust"] = tuple(trust)
    call = functools.partial(call, *node.get("_args_", ()), **arguments)
    if node.get("_partial_"):
        return call
    try:
        return call()
    except ArgumentError as error:
        raise ArgumentError(_at(path, error.name), error.value, error.rule) from None


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _refuse_alias(path: str, target: str, trust: Sequence[str]) -> None:
    """Refuse a trusted path to a foreign thing, as in `lightning.x.os.system`."""
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"{path or 'node'}._target_={target} cannot be imported: {error}"
        ) from None
    if not (inspect.isclass(found) or inspect.isroutine(found)) or not is_trusted(
        getattr(found, "__module__", None) or "", trust
    ):
        raise ConfigError(f"{path or 'node'}._target_={target} is no class of a trusted package")
