"""A thread that carries values to something that may be slow, hang or fail."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

from PIL.Image import Image


class Sink(Protocol):
    """What values are carried to; everything is called in the writer's thread, one by one."""

    def values(self, values: dict[str, float], step: int) -> None:
        """Take numbers by name at a step."""
        ...

    def picture(self, key: str, picture: Image, step: int) -> None:
        """Take the picture of a series at a step."""
        ...

    def table(self, key: str, columns: list[str], rows: list[list[Any]], step: int) -> None:
        """Take a table; a cell is a number, a text, a picture or None."""
        ...

    def flush(self) -> None:
        """Let readers see what was taken; called when nothing else waits."""
        ...

    def close(self, status: str) -> None:
        """End; `status` is "success", "failed" or "finished"."""
        ...


class BackgroundWriter:
    """Opens a sink, hands it what is posted, in order, and closes it, all in one daemon thread.

    Whoever posts never waits. Where the sink hangs so long that `capacity` things are waiting, what
    comes after is dropped; where it fails, everything after is. Each is said once, as a warning.

    Args:
        name: Whose name warnings carry.
        open_sink: Makes the sink; may take long.
        capacity: Things that may wait.
    """

    def __init__(self, name: str, open_sink: Callable[[], Sink], capacity: int = 1000) -> None:
        self.name = name
        self._open = open_sink
        self._waiting: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(capacity)
        self._status = "success"
        self._failed = self._full = self._left = False
        self._thread = threading.Thread(target=self._work, name=f"{name} writer", daemon=True)
        self._thread.start()

    def post(self, action: Callable[[Sink], None]) -> None:
        """Have `action` called with the sink once all that was posted before is done."""
        if self._failed:
            return
        try:
            self._waiting.put_nowait(action)
        except queue.Full:
            if not self._full:
                self._full = True
                self._warn("does not keep up, so values are left out")

    def close(self, status: str, patience: float) -> bool:
        """Close the sink once everything is handed over.

        Args:
            status: What the sink's `close` is told.
            patience: Seconds to wait for that.

        Returns:
            Whether it was done in time. If not, a warning was given; the thread goes on as long as
            the process lives.
        """
        until = time.monotonic() + patience
        self._status = status
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=0 if self._failed else patience)
        self._thread.join(max(0.0, until - time.monotonic()))
        done = not self._thread.is_alive()
        if not done and not self._failed:
            self._warn(f"did not take everything within patience={patience:g} s and is left alone")
        self._left = True
        return done

    def _work(self) -> None:
        sink: Sink | None = None
        try:
            sink = self._open()
            while (action := self._waiting.get()) is not None:
                action(sink)
                if self._waiting.empty():
                    sink.flush()
            sink.close(self._status)
        except Exception as error:
            self._failed = True
            self._warn(f"failed and is switched off for this run: {type(error).__name__}: {error}")
            if sink is not None:
                with contextlib.suppress(Exception):
                    sink.close("failed")

    def _warn(self, what: str) -> None:
        """One line; nobody wants to hear of a logger that was left alone."""
        if not self._left:
            text = f"{self.name} {what}; training goes on and metrics.csv has every curve"
            warnings.warn(text, stacklevel=3)
