"""Loggers whose work happens in a thread of its own, so that they never stop or slow a training.

A server may take minutes to answer when a run is opened or closed, and a disk may be full. What a
training logs waits in a queue for a thread that opens the logger, writes everything in order and
closes it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL.Image import Image

from diffusion_lab.files import read_record
from diffusion_lab.runs.environment import git_revision

Cell = float | str | Image | None


class BackgroundLogger(Logger):
    """Mixed in before one of Lightning's loggers, it leaves the work of that logger to a thread.

    The logger is opened at its first value, and closed at the end of the fit. One that fails is
    switched off for this fit, one that is not closed `patience` seconds after the end for good;
    either is said once, as a warning. Subclasses define what the thread calls: `open`,
    `write_picture`, `write_table`, `flush` and `close`.

    Attributes:
        patience: Seconds that the end of a run waits for the logger at most.
        paused: While it is True, values, pictures and tables are left out; for measuring.
        experiment: What `open` gave, while the logger is open.
    """

    patience: float = 30.0
    paused: bool = False
    experiment: Any = None
    _config: Mapping[str, Any] = MappingProxyType({})
    _thread: _Thread | None = None

    @abstractmethod
    def open(self, config: dict[str, Any]) -> Any:
        """Start what is written to, the `experiment`; `config` is the run's, resolved."""

    def write_values(self, values: dict[str, float], step: int) -> None:
        """Write numbers by name, as Lightning's logger does."""
        super().log_metrics(values, step)  # type: ignore[safe-super]

    @abstractmethod
    def write_picture(self, key: str, picture: Image, step: int) -> None:
        """Write the picture of a series at a step."""

    @abstractmethod
    def write_table(self, key: str, columns: list[str], rows: list[list[Cell]], step: int) -> None:
        """Write a table."""

    def flush(self) -> None:
        """Let readers see what was written; called when nothing else waits."""

    @abstractmethod
    def close(self, status: str) -> None:
        """End; `status` is "success", "failed" or "finished"."""

    def abandon(self) -> None:
        """Give up what was not closed in time, so that the process can end."""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the configuration, for when the logger is opened."""
        self._config = dict(params or {})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at `step`."""
        self.post(partial(self.write_values, dict(metrics), step or 0))

    @rank_zero_only
    def log_picture(self, key: str, picture: Image, step: int) -> None:
        """Log a picture at `step`; it may be changed or closed afterwards."""
        self.post(partial(self.write_picture, key, picture.copy(), step))

    @rank_zero_only
    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        """Log a table at `step`; a cell is a number, a text, a picture, or None where empty."""
        self.post(partial(self.write_table, key, [*columns], [[*row] for row in rows], step))

    def save(self) -> None:
        """Nothing: the thread writes as it goes."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the logger, if it was opened, so that the next fit in this process opens it anew.

        One that could not be closed in time stays switched off: its thread still has the logger.
        """
        thread = self._thread
        if thread is None or thread.left_alone:
            return
        if thread.finish(status, self.patience):
            self._thread = None
        else:
            self.abandon()

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` called in the thread once all that was posted before is done."""
        if not self.paused:
            self._thread = self._thread or _Thread(self, dict(self._config))
            self._thread.post(action)


class _Thread(threading.Thread):
    """Opens a logger, does what is posted, in order, and closes it."""

    def __init__(self, logger: BackgroundLogger, config: dict[str, Any]) -> None:
        super().__init__(name=f"{type(logger).__name__} writer", daemon=True)
        self.logger, self.config = logger, config
        self.posted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.status = "success"
        self.failed = self.left_alone = False
        self.start()

    def post(self, action: Callable[[], None]) -> None:
        if not (self.failed or self.left_alone):
            self.posted.put(action)

    def finish(self, status: str, patience: float) -> bool:
        """Close the logger once everything is written; whether that was done in time."""
        self.status = status
        self.posted.put(None)
        self.join(patience)
        if self.is_alive() and not self.failed:
            self.warn(f"did not take everything within patience={patience:g} s and is left alone")
        self.left_alone = self.is_alive()
        return not self.left_alone

    def run(self) -> None:
        try:
            self.logger.experiment = self.logger.open(self.config)
            while (action := self.posted.get()) is not None:
                action()
                if self.posted.empty():
                    self.logger.flush()
            self.logger.close(self.status)
        except Exception as error:
            self.failed = True
            self.warn(f"failed and is switched off for this run: {type(error).__name__}: {error}")
            if self.logger.experiment is not None:
                with contextlib.suppress(Exception):
                    self.logger.close("failed")
        self.logger.experiment = None

    def warn(self, what: str) -> None:
        """Warn once; stay silent after the logger was left alone."""
        if not self.left_alone:
            name = type(self.logger).__name__
            text = f"{name} {what}; training goes on and metrics.csv has every curve"
            warnings.warn(text, stacklevel=3)


def takes_tables(loggers: Iterable[Logger]) -> bool:
    """Whether any of a trainer's loggers shows pictures and tables."""
    return any(isinstance(logger, BackgroundLogger) for logger in loggers)


def log_images(loggers: Iterable[Logger], key: str, picture: Image, step: int) -> None:
    """Hand a picture to every logger that takes pictures; `step` is that of the curves."""
    for logger in loggers:
        if isinstance(logger, BackgroundLogger):
            logger.log_picture(key, picture, step)


def log_table(
    loggers: Iterable[Logger],
    key: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    step: int,
) -> None:
    """Hand a table to every logger that takes tables; `step` is that of the curves."""
    for logger in loggers:
        if isinstance(logger, BackgroundLogger):
            logger.log_table(key, columns, rows, step)


def facts_of_run(run_dir: Path) -> dict[str, Any]:
    """Code, data and machine of a run, from its summary.json as it is now.

    Args:
        run_dir: The run's folder.

    Returns:
        "code/revision" (the commit, "+changes" where the code was edited since; None outside of a
        checkout) and, where the run keeps a record, "data/name", "data/sha256", "hardware/...",
        "versions/..." and "parameters".
    """
    record = read_record(run_dir / "summary.json")
    facts: dict[str, Any] = {"code/revision": record.get("git") or git_revision()}
    data = record.get("data") or {}
    facts |= {f"data/{key}": data[key] for key in ("name", "sha256") if key in data}
    for node in ("hardware", "versions"):
        facts |= {f"{node}/{key}": value for key, value in (record.get(node) or {}).items()}
    return facts | {key: record[key] for key in ("parameters",) if key in record}
