"""One line on the terminal that is redrawn; in a log file, lines one under the other."""

from __future__ import annotations

import sys


class StatusLine:
    """The line, which keeps track of what it has to wipe.

    Attributes:
        terminal: Whether standard output is one, so that the line can be redrawn.
    """

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self._width = 0

    def write(self, text: str, keep: bool = False) -> None:
        """Show a text in place of the one before; `keep` leaves it there, as a log file does."""
        keep = keep or not self.terminal
        start = "\r" if self.terminal else ""
        print(f"{start}{text.ljust(self._width)}", end="\n" if keep else "", flush=True)
        self._width = 0 if keep else len(text)

    def leave(self) -> None:
        """Let what stands there stay, and go on below it."""
        if self._width:
            print(flush=True)
            self._width = 0

    def wipe(self) -> None:
        """Take away what stands there."""
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", flush=True)
            self._width = 0


def clock(seconds: float) -> str:
    """Seconds as 0:07, 3:12 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
