"""Run seconds: since the run began, without the time that it stood still between attempts."""

from __future__ import annotations

import time


class RunClock:
    """Stands still until `start`, then goes on from ``base`` seconds."""

    def __init__(self) -> None:
        self.base = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Let it go on."""
        if self._started is None:
            self._started = time.monotonic()

    def seconds(self) -> float:
        """Run seconds now."""
        return self.base + (0.0 if self._started is None else time.monotonic() - self._started)
