"""Turning a function of a config into a command."""

from __future__ import annotations

import errno
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
from typing import Any, TextIO

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffusion_lab.config.arguments import help_text, listing, with_stored
from diffusion_lab.config.composing import CONF, groups, names_in_yaml, settle
from diffusion_lab.config.messages import explain, mistakes, wrong_options
from diffusion_lab.config.words import Typed, key_of, value_of
from diffusion_lab.errors import ConfigError, UserError

_GONE = (errno.EPIPE, errno.EIO)
"""Nobody reads the pipe any more; the terminal was closed."""
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

    An error of what was typed is printed without a traceback and ends with status 2, see `errors`.
    Whoever reads the output may stop reading: the command goes on, and ends as it would have.

    Args:
        command: Name of the yaml at the top of `conf/`.
        task: What to do with a config. It raises ConfigError for what cannot run.
        prepare: Further rewriting of what was typed, after the common one.
        job: In a sweep, called in place of `task` for each job, which it is given.
        finish: After a sweep; gives the exit status.
    """
    typed = Typed.of(sys.argv[1:])
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    with reader_may_stop(), _ended_with_a_status(command, typed):
        _answer_questions(command, typed)
        if not typed.silent:
            _raise_mistakes(command, typed)
            if prepare is not None and not typed.shows:
                typed.overrides = prepare(typed)
            typed.overrides, checkpoint = with_stored(command, typed.overrides)
            if checkpoint is not None:
                task = partial(task, checkpoint=checkpoint)
        sys.argv[1:] = typed.argv
        status = _through_hydra(command, typed, task, job, finish)
        if status:
            sys.exit(status)


@contextmanager
def _ended_with_a_status(command: str, typed: Typed) -> Iterator[None]:
    """Print what is written for a person to read as one message, and leave with its status."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        several = {"multirun": typed.multirun, "own_files": typed.has_own_files}
        text, status = explain(error, command, typed.overrides, **several), ConfigError.exit_status
    except UserError as error:
        text, status = str(error), error.exit_status
    except KeyboardInterrupt:
        text, status = "stopped by Ctrl-C", 130
    else:
        return
    print(f"error: {text}", file=sys.stderr)
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
                settle(cfg, map(key_of, HydraConfig.get().overrides.task))
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
        traceback.print_exc()  # of a launcher; what its jobs left is reported
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


def _raise_mistakes(command: str, typed: Typed) -> None:
    """Raise what looks mistyped and is, before Hydra composes, which is what takes long.

    Raises:
        ConfigError: One sentence for each mistake.
    """
    stored = any(value_of(key, typed.overrides) for key in ("ckpt", "resume", "run"))
    if not _looks_mistyped(typed, stored):
        return
    found = mistakes(
        command,
        typed.overrides,
        multirun=typed.multirun or value_of("study", typed.overrides) is not None,
        own_files=typed.has_own_files,
        stored=stored,
    )
    if found:
        raise ConfigError("\n".join(found))


def _looks_mistyped(typed: Typed, stored: bool) -> bool:
    """Whether a word has a plus, an option that is in no group, or a key that is in no yaml."""
    if any(word.startswith("+") for word in typed.overrides):
        return True
    words = [word for word in typed.overrides if word[:1].isalpha() and "=" in word]
    if typed.has_own_files or any(map(wrong_options, words)):
        return not typed.has_own_files
    names = {key_of(word).partition("@")[0].rpartition(".")[2] for word in words}
    inside = re.findall(r"\w+(?=:)", " ".join(words))
    return not stored and bool(names - {*inside, *names_in_yaml(), *groups()})


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


class Lenient:
    """A text stream that goes on into nothing once nobody reads it any more.

    Args:
        stream: The stream; everything but writing is its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write; how many characters."""
        self._tried(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._tried(self._stream.flush)

    def _tried(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._leave_reader()

    def _leave_reader(self) -> None:
        """Put the null device in the place of what is gone, for all that writes to it."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)
        self._stream.flush()  # what is buffered; else it is tried again when Python ends


@contextmanager
def reader_may_stop() -> Iterator[None]:
    """While this lasts, a reader of stdout or stderr that stops is no error.

    As in `--help | head`, or in a training whose terminal was closed: it goes on, in silence.
    """
    before = sys.stdout, sys.stderr
    lenient = [None if stream is None else Lenient(stream) for stream in before]
    sys.stdout, sys.stderr = lenient  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in lenient:
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
