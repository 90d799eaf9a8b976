"""A slow machine, emulated on a fast one."""

from __future__ import annotations

import time
from collections.abc import Callable


class Throttle:
    """Makes each local step of an assignment take at least so long in the mean: a token bucket.

    A step that took longer by itself is paid back by shorter waits afterwards, within its assignment; so is what a
    sleep oversleeps.

    Args:
        seconds_per_step: above 0.
        clock: seconds, as of ``time.monotonic``.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        seconds_per_step: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 < seconds_per_step < float("inf"):
            raise ValueError(f"seconds_per_step is {seconds_per_step}: it must be above 0 and finite")
        self._seconds = seconds_per_step
        self._clock = clock
        self._sleep = sleep
        self._due = 0.0

    def begin(self) -> None:
        """An assignment begins: what was slow or idle before does not count."""
        self._due = self._clock()

    def after_step(self) -> None:
        """Sleep what is missing of the steps made since `begin`."""
        self._due += self._seconds
        if (missing := self._due - self._clock()) > 0:
            self._sleep(missing)
