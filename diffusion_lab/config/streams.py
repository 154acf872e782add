"""Output into a pipe or a terminal that may go away."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EIO)
"""Nobody reads the pipe any more; the terminal was closed."""


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
