"""What is known of a client's speed, from the pieces of work that it did."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FASTEST = 1e-6
"""Seconds per step below which no estimate falls: amounts are divided by it."""


@dataclass(frozen=True)
class SpeedOptions:
    """How speeds are estimated.

    Attributes:
        momentum: weight of the newest observation in the running mean, in (0, 1]; 0.9 in FedCompass.
        separate_link: estimate seconds of the link, which a piece costs once whatever its amount, apart from seconds
            per step. Off, as in FedCompass, the way there and back counts as if it grew with the amount.
        median_of: take the median of the last so many observations instead of the running mean; 0 for the mean. One
            outlier then moves nothing.
    """

    momentum: float = 0.9
    separate_link: bool = False
    median_of: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.momentum <= 1:
            raise ValueError(f"momentum is {self.momentum}: it must be above 0 and at most 1")
        if self.median_of < 0:
            raise ValueError(f"median_of is {self.median_of}: it must be at least 0")


FEDCOMPASS_SPEED = SpeedOptions()
"""As in FedCompass (Li et al. 2024)."""


class Speed:
    """A client's speed: seconds per step, and seconds of the link for each piece.

    Attributes:
        options: how it is estimated.
        known: whether anything was observed.
        step: seconds per local step; smaller is faster.
        link: seconds of the link for each piece; 0 where it is not estimated apart.
    """

    def __init__(self, options: SpeedOptions = FEDCOMPASS_SPEED) -> None:
        self.options = options
        self.known = False
        self.step = 0.0
        self.link = 0.0
        self._last: list[tuple[float, float]] = []

    def observe(self, elapsed: float, amount: int, compute: float, link: float) -> None:
        """Take in a piece of work.

        Args:
            elapsed: seconds from the assignment to the arrival.
            amount: local steps, at least 1.
            compute: seconds in the client.
            link: seconds on the link, there and back.
        """
        whole = max(elapsed, 0.0) / amount
        seen = (max(compute, 0.0) / amount, max(link, 0.0)) if self.options.separate_link else (whole, 0.0)
        if self.options.median_of:
            self._last = [*self._last, seen][-self.options.median_of :]
            step, way = (statistics.median(values) for values in zip(*self._last, strict=True))
        elif self.known:
            new, old = self.options.momentum, 1.0 - self.options.momentum
            step, way = old * self.step + new * seen[0], old * self.link + new * seen[1]
        else:
            step, way = seen
        self.step, self.link, self.known = max(step, FASTEST), way, True

    def duration(self, amount: int) -> float:
        """Seconds that this many steps are expected to take, with the link."""
        return self.link + amount * self.step

    def steps_within(self, seconds: float) -> int:
        """Steps that are expected to be done within this time, with the link; below 1 where there is no time."""
        return math.floor((seconds - self.link) / self.step)

    def state_dict(self) -> dict[str, Any]:
        """JSON values. The options are not in it: they are config."""
        return {
            "known": self.known,
            "step": self.step,
            "link": self.link,
            "last": [list(pair) for pair in self._last],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], options: SpeedOptions) -> Speed:
        """The inverse of `state_dict`."""
        speed = cls(options)
        speed.known, speed.step, speed.link = state["known"], state["step"], state["link"]
        speed._last = [(step, link) for step, link in state["last"]]
        return speed
