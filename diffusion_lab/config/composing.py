"""From a command's name and overrides to a config, by Hydra.

`conf/` stands beside the package in a checkout and inside it in an installed wheel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from diffusion_lab.config.signatures import signature

_PACKAGE = Path(__file__).resolve().parents[1]


def _conf_folder() -> Path:
    for folder in (_PACKAGE.parent / "conf", _PACKAGE / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(f"conf/train.yaml is neither in {_PACKAGE.parent} nor in {_PACKAGE}")


CONF = _conf_folder()
"""The folder of all yaml files."""


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


def compose(command: str, overrides: Sequence[str] = (), *, settled: bool = True) -> DictConfig:
    """The config of a command, as its command line would make it.

    Args:
        command: train, sample, evaluate, likelihood ...: a yaml file at the top of `conf/`.
        overrides: As typed: key=value, group=option, +key=value, ~key.
        settled: Also leave out what a recipe sets for another option than the chosen one.

    Returns:
        The config, without Hydra's own node.

    Raises:
        ConfigError: An unknown key or option, or a value that cannot be read.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from diffusion_lab.config.arguments import rewrite
    from diffusion_lab.config.suggestions import explain
    from diffusion_lab.errors import ConfigError

    try:
        typed = rewrite(command, list(overrides))
        cfg = raw(command, typed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, command, overrides)) from None
    return settle(cfg, typed) if settled else cfg


def raw(command: str, overrides: Sequence[str] = (), *, hydra: bool = False) -> DictConfig:
    """What Hydra itself composes; `hydra` keeps its own node and with it the choices."""
    with _own_hydra():
        return hydra_compose(command, overrides=list(overrides), return_hydra_config=hydra)


def options(group: str) -> list[str]:
    """Names that may stand after `group=`; empty if there is no such group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def groups() -> list[str]:
    """All groups of `conf/`, nested ones as a/b."""
    folders = {path.parent for path in CONF.rglob("*.yaml")} - {CONF}
    return sorted(folder.relative_to(CONF).as_posix() for folder in folders)


def unset(node: DictConfig) -> list[str]:
    """Keys under a node that have no value and need one (`???`)."""
    return sorted(OmegaConf.missing_keys(node))


def key_of(override: str) -> str:
    """The key path that an override sets: `++a.b=1` -> `a.b`, `grid@x.y=z` -> `grid@x.y`."""
    return override.lstrip("+~").partition("=")[0].strip()


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
