"""Errors that are written for a person to read, each with the exit status of a command.

| status | meaning |
|---|---|
| 0 | done; also where the reader of the output stopped |
| 1 | a run, a job or a study failed |
| 2 | what was typed, or what it names, cannot be used; nothing was changed |
| 130, 143 | stopped by Ctrl-C, by SIGTERM |
"""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Printed as one message, without a traceback; ends a command with `exit_status`."""

    exit_status = 2


class ConfigError(UserError, ValueError):
    """What the user typed cannot be run; the message says what to type instead."""


class DataError(UserError, ValueError):
    """Data that are damaged, missing or not as requested; the message has the remedy."""


class CheckpointError(UserError, ValueError):
    """A file that is no checkpoint, is damaged, or does not fit what it is loaded into."""


class RunError(UserError, RuntimeError):
    """A training that cannot go on."""

    exit_status = 1


class StudyError(RunError):
    """A study that cannot go on; the message says what to type."""


class ArgumentError(UserError, ValueError):
    """An argument out of range.

    A constructor knows the name of its argument and not where in a configuration it stands; who
    builds from a configuration puts the path of the node in front of the name.

    Attributes:
        name: The argument.
        value: What it was given.
        rule: What must hold, as the end of a sentence that begins with `name=value`.
    """

    def __init__(self, name: str, value: Any, rule: str) -> None:
        super().__init__(name, value, rule)
        self.name, self.value, self.rule = name, value, rule

    def __str__(self) -> str:
        value = "null" if self.value is None else self.value
        value = str(value).lower() if isinstance(value, bool) else value
        return f"{self.name}={value} {self.rule}"
