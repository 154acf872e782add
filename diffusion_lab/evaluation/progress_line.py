"""The progress of something that is done many times: the share done and the time left."""

from __future__ import annotations

import time

from diffusion_lab.status_line import StatusLine, clock


class ProgressLine:
    """One line with the share done and the time left, estimated from the calls so far.

    On a terminal the line is redrawn; elsewhere (a log file) one is printed now and then.

    Args:
        calls: Of the whole: network calls (images times calls per image), or steps.
        interval: Seconds between two redraws on a terminal.
        log_interval: Seconds between two lines elsewhere.
    """

    def __init__(self, calls: float, interval: float = 0.5, log_interval: float = 15.0) -> None:
        self.calls, self.done = max(calls, 1.0), 0
        self._line = StatusLine()
        self.interval = interval if self._line.terminal else log_interval
        self.name = ""
        self._spent = 0.0
        self._last: float | None = None
        self._shown = 0.0

    def begin(self, name: str) -> None:
        """Start a row; the time up to its first call (loading) does not count."""
        self.name, self._last = name, None

    def __call__(self, calls: int) -> None:
        """Count network calls that were just made."""
        now = time.perf_counter()
        self.done += calls
        if self._last is not None:
            self._spent += now - self._last
        self._last, self._shown = now, self._shown or now
        if now - self._shown >= self.interval and self._spent:
            self._shown = now
            left = self._spent / self.done * max(self.calls - self.done, 0)
            text = f"{self.name}  {self.done / self.calls:.0%} of all  {clock(left)} left"
            self._line.write(text)

    def keep(self, text: str) -> None:
        """Print a line that stays, in place of the one that is redrawn."""
        self._line.write(text, keep=True)

    def end(self) -> None:
        """Remove the line that is redrawn."""
        self._line.wipe()
