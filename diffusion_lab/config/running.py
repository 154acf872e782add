"""Turning a function of a config into a command."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.arguments import help_text, listing, with_stored
from diffusion_lab.config.composing import settle
from diffusion_lab.config.groups import CONF, groups, names_in_yaml
from diffusion_lab.config.streams import reader_may_stop
from diffusion_lab.config.suggestions import explain, known_keys, taker, unknown_key
from diffusion_lab.config.words import Typed, key_of, value_of
from diffusion_lab.errors import ArgumentError, ConfigError, UserError

Task = Callable[..., Any]
"""(config) or, of a command that was given `ckpt=`, (config, checkpoint) -> anything."""


def run(
    command: str,
    task: Task,
    *,
    prepare: Callable[[Typed], list[str]] | None = None,
    job: Callable[[DictConfig, Task], Any] | None = None,
    finish: Callable[[], int] | None = None,
) -> None:
    """Run `task` on the config that the command line describes.

    A fault of what was typed is printed without a traceback and ends with status 2, see `errors`.
    Whoever reads the output may stop reading: the command goes on, and ends as it would have.

    Args:
        command: Name of the yaml at the top of `conf/`.
        task: What to do with a config. It raises ConfigError for what cannot run.
        prepare: Further rewriting of what was typed, after the common one.
        job: In a sweep, called in place of `task` for each job, which it is given.
        finish: After a sweep; gives the exit status.
    """
    with reader_may_stop():
        _run(command, task, prepare, job, finish)


def _run(
    command: str,
    task: Task,
    prepare: Callable[[Typed], list[str]] | None,
    job: Callable[[DictConfig, Task], Any] | None,
    finish: Callable[[], int] | None,
) -> None:
    typed = Typed.of(sys.argv[1:])
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    try:
        _answer_questions(command, typed)
        if not typed.silent:
            _refuse_unknown_keys(command, typed)
            if prepare is not None and not typed.shows:
                typed.overrides = prepare(typed)
            typed.overrides, checkpoint = with_stored(command, typed.overrides)
            if checkpoint is not None:
                task = partial(task, checkpoint=checkpoint)
        sys.argv[1:] = typed.argv
        status = _through_hydra(command, typed, task, job, finish)
    except (HydraException, OmegaConfBaseException) as error:
        _stop(explain(error, command, typed.overrides), 2)
    except UserError as error:
        _stop(str(error), error.exit_status)
    except ArgumentError as error:
        _stop(str(error), 2)
    except KeyboardInterrupt:
        _stop("stopped by Ctrl-C", 130)
    else:
        if status:
            sys.exit(status)


def _through_hydra(
    command: str,
    typed: Typed,
    task: Task,
    job: Callable[[DictConfig, Task], Any] | None,
    finish: Callable[[], int] | None,
) -> int:
    """Let Hydra compose and launch; exceptions of the task come out unwrapped."""
    raised: list[BaseException] = []

    def one(cfg: DictConfig) -> Any:
        OmegaConf.set_struct(cfg, False)
        try:
            with reader_may_stop():  # again: a launcher's process has a stdout of its own
                settle(cfg, HydraConfig.get().overrides.task)
                result = job(cfg, task) if typed.multirun and job is not None else task(cfg)
        except Exception as error:
            raised.append(error)
            return None
        return result if isinstance(result, int | float) else None

    ending = finish if typed.multirun else None
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)  # a job announces itself, see `sweeps`
    try:
        with _unformatted_errors():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(one)()
    except (HydraException, OmegaConfBaseException):
        raise
    except Exception:
        if ending is None:
            raise
        traceback.print_exc()  # of a launcher; what its jobs left is told of
        return ending() or 1
    if ending is not None:
        for error in raised:
            print(f"error: {error}", file=sys.stderr)
        return ending() or (1 if raised else 0)
    if raised:
        raise raised[0]
    return 0


@contextmanager
def _unformatted_errors() -> Iterator[None]:
    """Have Hydra raise what goes wrong instead of printing it and leaving."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _answer_questions(command: str, typed: Typed) -> None:
    """Answer `--help` and `list=GROUP`, and end."""
    if {"--help", "-h"} & set(typed.flags):
        print(help_text(command, typed.overrides))
        sys.exit(0)
    for word in typed.overrides:
        if key_of(word) == "list":
            print(listing(word))
            sys.exit(0)


def _refuse_unknown_keys(command: str, typed: Typed) -> None:
    """Refuse keys that stand nowhere, before Hydra composes, which is what takes long.

    `+key=` and `++key=` too where no constructor takes the key: Hydra itself advises `+` for a
    mistyped key, which then silently does nothing.
    """
    overrides = typed.overrides
    added = [key_of(word) for word in overrides if word.startswith("+")]
    elsewhere = ("hydra.", *_own_nodes(overrides))
    known_groups = groups()
    suspects = [
        key
        for key in [*added, *_set_without_a_yaml(typed)]
        if key.split("@")[0] not in known_groups and not f"{key}.".startswith(elsewhere)
    ]
    known = set(known_keys(command, overrides)) if suspects else set()
    faults = [
        unknown_key(key, command, overrides)
        for key in suspects
        if key not in known and not (key in added and taker(key, command, overrides))
    ]
    if faults:
        raise ConfigError("\n".join(faults))


def _set_without_a_yaml(typed: Typed) -> list[str]:
    """Typed keys whose last name stands in no yaml and nowhere else in what was typed.

    None where keys may come from yaml files of the user's own, or from a stored run.
    """
    own_files = {"--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"}
    stored = [value_of(key, typed.overrides) for key in ("ckpt", "resume", "run")]
    if own_files & set(typed.flags) or any(stored):
        return []
    words = [word for word in typed.overrides if word[:1].isalpha() and "=" in word]
    names = set(re.findall(r"\w+(?=:)", " ".join(words))).union(names_in_yaml())
    added = {key_of(word) for word in typed.overrides if word.startswith("+")}
    keys = [key_of(word) for word in words]
    return [k for k in keys if k.rpartition(".")[2] not in names and k not in added]


def _own_nodes(overrides: list[str]) -> list[str]:
    """Nodes that are added whole, such as a callback of one's own: they bring a `_target_`."""
    keys = [key_of(word) for word in overrides if word.startswith("+") and "_target_" in word]
    return [key.removesuffix("_target_").rstrip(".") + "." for key in keys]


def _show_warning(
    plain: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    *place: Any,
    **more: Any,
) -> None:
    """A warning of ours as one line, others as ever."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        print(f"warning: {message}", file=sys.stderr)
    else:
        plain(message, category, filename, *place, **more)


def _stop(text: str, status: int) -> None:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(status)
