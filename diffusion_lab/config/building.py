"""Instantiating config nodes, from an allow-list of packages.

A config is data, also one that came out of a checkpoint: a `_target_` may only name a class or a
function that was defined in this package, in `torch.optim`, in `lightning`, or in a package that
the user trusts by name (`trust=[my_package]`).
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from omegaconf import DictConfig, ListConfig, OmegaConf

from diffusion_lab.errors import ConfigError

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


def untrusted(node: Any, trust: Sequence[str] = (), path: str = "") -> list[str]:
    """One sentence for every `_target_` outside the allow-list; needs no import."""
    return [
        f"{where or 'node'}._target_={target} is not of a trusted package "
        f"({', '.join((*TRUSTED, *trust))}); trust=[{target.split('.')[0]}] adds one you know"
        for where, target in targets(node, path)
        if not is_trusted(target, trust)
    ]


def instantiate(node: Any, *, trust: Sequence[str] = (), **extra: Any) -> Any:
    """Build what a config node describes.

    Args:
        node: A config or dict with `_target_`; None or an empty node gives None.
        trust: Further packages that a `_target_` may name.
        extra: Further keyword arguments of the constructor, objects among them.

    Returns:
        The object, or a `functools.partial` where the node says `_partial_: true`. Lists and dicts
        inside are plain ones.

    Raises:
        ConfigError: A `_target_` outside the allow-list, or one that does not exist.
        Exception: Whatever the constructor raises (a ValueError for a value out of range).
    """
    from hydra.utils import instantiate as build

    if node is None or (isinstance(node, DictConfig) and node._is_none()) or not node:
        return None
    node = _resolved(node)
    faults = untrusted(node, trust)
    if faults:
        raise ConfigError("\n".join(faults))
    for path, target in targets(node):
        _refuse_alias(path, target, trust)
    partial = bool(node.get("_partial_"))
    try:
        if not extra:
            return build(node, _convert_="all")
        made = build({**_items(node), "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if cause is None:
            raise ConfigError(str(error)) from None
        raise cause from None
    return functools.partial(made, **extra) if partial else made(**extra)


def _items(node: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node
    return dict(plain)


def _resolved(node: Any) -> Any:
    """A DictConfig free of interpolations into its parents, so that it is read once."""
    if isinstance(node, DictConfig):
        return OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    return node


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
