"""Loggers that never stop or slow a training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL.Image import Image

from diffusion_lab.ranges import NonNegative, checked
from diffusion_lab.training.loggers.background_writer import BackgroundWriter, Sink

__all__ = ["GuardedLogger", "Sink", "log_images", "log_table", "takes_tables"]

Cell = float | str | Image | None


def log_images(loggers: Iterable[Logger], key: str, picture: Image, step: int) -> None:
    """Hand a picture to every logger that takes pictures.

    Args:
        loggers: The trainer's loggers.
        key: Name of the series; one picture a step.
        picture: What to show; it may be changed or closed afterwards.
        step: Index of the last optimizer step, the x-axis of the curves.
    """
    for logger in loggers:
        if isinstance(logger, GuardedLogger):
            logger.log_picture(key, picture, step)


def log_table(
    loggers: Iterable[Logger],
    key: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    step: int,
) -> None:
    """Hand a table to every logger that takes tables.

    Args:
        loggers: The trainer's loggers.
        key: Name of the table.
        columns: Its head.
        rows: Its rows; a cell is a number, a text, a picture, or None where it is empty.
        step: Index of the last optimizer step.
    """
    rows = [list(row) for row in rows]
    for logger in loggers:
        if isinstance(logger, GuardedLogger):
            logger.log_table(key, columns, rows, step)


def takes_tables(loggers: Iterable[Logger]) -> bool:
    """Whether any of the loggers shows pictures and tables."""
    return any(isinstance(logger, GuardedLogger) for logger in loggers)


class GuardedLogger(Logger):
    """A logger in a thread of its own: opened at its first value, and free to hang or to fail.

    Attributes:
        paused: While it is True, values, pictures and tables are left out; for measuring.

    Args:
        patience: Seconds that the end of a run waits for it at most.

    Raises:
        ArgumentError: patience below 0.
    """

    @checked
    def __init__(self, patience: NonNegative = 30.0) -> None:
        super().__init__()
        self.patience = patience
        self.paused = False
        self._config: dict[str, Any] = {}
        self._writer: BackgroundWriter | None = None

    @abstractmethod
    def open(self, config: dict[str, Any]) -> Sink:
        """Start what the values go to, in the writer's thread; `config` is the run's, resolved."""

    def abandon(self) -> None:
        """Give up what was not closed in time, so that the process can end."""

    @property
    def name(self) -> str:
        """The class's name."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """Empty: the run folder tells runs apart."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values at `step`."""
        values = dict(metrics)
        self._post(lambda sink: sink.values(values, step or 0))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Keep the configuration, for when the logger is opened."""
        self._config = dict(params or {})

    @rank_zero_only
    def log_picture(self, key: str, picture: Image, step: int) -> None:
        """Log a picture at `step`."""
        own = picture.copy()
        self._post(lambda sink: sink.picture(key, own, step))

    @rank_zero_only
    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], step: int
    ) -> None:
        """Log a table at `step`."""
        cells = [list(row) for row in rows]
        self._post(lambda sink: sink.table(key, list(columns), cells, step))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close, if it was opened, so that the next run in this process starts its own."""
        writer, self._writer = self._writer, None
        if writer is not None and not writer.close(status, self.patience):
            self.abandon()

    def _post(self, action: Callable[[Any], None]) -> None:
        if self.paused:
            return
        if self._writer is None:
            config = self._config
            self._writer = BackgroundWriter(self.name, lambda: self.open(config))
        self._writer.post(action)
