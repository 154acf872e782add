"""The groups and options of `conf/`, as its files say, and what Hydra composes of them.

`conf/` stands beside the package in a checkout and inside it in an installed wheel. Hydra and
OmegaConf are imported when something is composed: models are loaded without them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_lab.config.signatures import signature

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parents[1]


def _conf_folder() -> Path:
    for folder in (_PACKAGE.parent / "conf", _PACKAGE / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"conf/train.yaml is neither in {_PACKAGE.parent} nor in {_PACKAGE}")


CONF = _conf_folder()
"""The folder of all yaml files."""


def options(group: str) -> list[str]:
    """Names that may stand after `group=`; empty if there is no such group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def groups() -> tuple[str, ...]:
    """All groups of `conf/`, nested ones as a/b."""
    folders = {path.parent for path in CONF.rglob("*.yaml")} - {CONF}
    return tuple(sorted(folder.relative_to(CONF).as_posix() for folder in folders))


def names_in_yaml() -> set[str]:
    """All names that stand before a colon somewhere in `conf/`, in comments too."""
    texts = (path.read_text(encoding="utf-8") for path in CONF.rglob("*.yaml"))
    return {name for text in texts for name in re.findall(r"\w+(?=\s*:)", text)}


@contextmanager
def _own_hydra() -> Iterator[None]:
    """A Hydra of our own, whether or not one is running already."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

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
    from hydra import compose

    with _own_hydra():
        return compose(command, overrides=list(overrides), return_hydra_config=hydra)


def plain_data(cfg: DictConfig) -> dict[str, Any]:
    """A config as dicts, lists and values, its interpolations resolved."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain


def unset(node: DictConfig) -> list[str]:
    """Keys under a node that have no value and need one (`???`)."""
    from omegaconf import OmegaConf

    return sorted(OmegaConf.missing_keys(node))


def settle(cfg: DictConfig, typed: Iterable[str] = ()) -> DictConfig:
    """Leave out what an experiment or a budget sets for another option than the chosen one.

    `experiment=x denoiser=mlp` composes also where x sets `denoiser.base_channels`: a key that the
    chosen constructor does not take is dropped, unless it was typed (then `check` reports it).
    """
    from omegaconf import OmegaConf, open_dict

    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    kept = set(typed)
    foreign = [
        (path, key)
        for name, node in plain.items()
        if name != "hydra"
        for path, key in _foreign_keys(node, str(name))
        if f"{path}.{key}" not in kept
    ]
    with open_dict(cfg):
        for path, key in foreign:
            del OmegaConf.select(cfg, path)[key]
    return cfg


def _foreign_keys(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path of a node, key that its class does not take), not looking below such a key."""
    if not isinstance(node, Mapping):
        return
    known = signature(str(node["_target_"])) if "_target_" in node else None
    for key, child in node.items():
        if known and not known.takes(str(key)):
            yield path, str(key)
        else:
            yield from _foreign_keys(child, f"{path}.{key}")
