"""Images a second: training only, without validation, drawing and saving."""

from __future__ import annotations

import time


class Throughput:
    """A clock that runs while training steps run.

    The first step of a run warms up caches and compilers, so it does not count.

    Args:
        warm: Whether that step has been, so that every one counts.
    """

    def __init__(self, warm: bool = False) -> None:
        self.images = 0
        self.seconds = 0.0
        self._since: float | None = None
        self._warm = warm

    def start(self) -> None:
        """Start the clock, if it stands."""
        if self._since is None:
            self._since = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock, if it runs."""
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    def step(self, images: int) -> None:
        """Count a finished step of `images` images."""
        if not self._warm:
            self._warm, self.seconds = True, 0.0
            self._since = None if self._since is None else time.perf_counter()
            return
        self.images += images

    @property
    def rate(self) -> float:
        """Images a second so far; 0 before there is anything to tell."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        seconds = self.seconds + running
        return self.images / seconds if self.images and seconds else 0.0
