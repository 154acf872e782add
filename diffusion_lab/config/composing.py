"""From a command's name and overrides to a config, by Hydra.

`conf/` stands beside the package in a checkout and inside it in an installed wheel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_lab.config.groups import CONF
from diffusion_lab.config.signatures import signature
from diffusion_lab.config.words import key_of


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra of our own, whether or not one is running already."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)


def raw(command: str, overrides: Sequence[str] = (), *, hydra: bool = False) -> DictConfig:
    """What Hydra itself composes; `hydra` keeps its own node and with it the choices."""
    with _own_hydra():
        return hydra_compose(command, overrides=list(overrides), return_hydra_config=hydra)


def unset(node: DictConfig) -> list[str]:
    """Keys under a node that have no value and need one (`???`)."""
    return sorted(OmegaConf.missing_keys(node))


def settle(cfg: DictConfig, overrides: Iterable[str] = ()) -> DictConfig:
    """Leave out what an experiment or a budget sets for another option than the chosen one.

    `experiment=x denoiser=mlp` composes also where x sets `denoiser.base_channels`: a key that the
    chosen constructor does not take is dropped, unless it was typed (then `check` reports it).
    """
    typed = {key_of(override) for override in overrides}
    with open_dict(cfg):
        for name in list(cfg):
            node = None if OmegaConf.is_missing(cfg, name) else cfg._get_node(name)
            if isinstance(node, DictConfig) and not node._is_none() and name != "hydra":
                _drop_foreign(node, str(name), typed)
    return cfg


def _drop_foreign(node: DictConfig, path: str, typed: set[str]) -> None:
    target = node._get_node("_target_")
    known = signature(str(target)) if target is not None else None
    for key in list(node):
        where = f"{path}.{key}"
        if known and not known.takes(str(key)) and where not in typed:
            del node[key]
            continue
        child: Any = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            _drop_foreign(child, where, typed)
