"""Where a run stands, in words: the newest figures, speeds over the last seconds, and how long it will take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from ..callbacks import Progress

_WINDOW_SECONDS = 15.0
"""Speeds and the time that is left are over this long."""
_SHORTEST_SECONDS = 1.0
"""Over less than this they would be noise."""
_LEAST_SHARE = 0.001
"""Less than this would look like nothing."""


class Figures:
    """Takes in what a run tells, and gives it as short phrases.

    Args:
        games: say how many games were played, where the run counts them, rather than steps.
        clock: seconds, only ever rising.
    """

    def __init__(self, games: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._games = games
        self._clock = clock
        self._window: deque[tuple[float, Progress]] = deque()
        self._validation: float | None = None

    def take(self, progress: Progress) -> None:
        """The run has come further."""
        now = self._clock()
        self._window.append((now, progress))
        while len(self._window) > 2 and now - self._window[1][0] >= _WINDOW_SECONDS:
            self._window.popleft()

    def take_evaluation(self, scores: Mapping[str, float]) -> None:
        """An evaluation on the validation set is in."""
        self._validation = scores.get("mean_return", self._validation)

    def phrases(self) -> list[str]:
        """What there is to tell now, such as ``["1,200 updates", "return -4.12"]``."""
        if not self._window:
            return []
        newest = self._window[-1][1]
        games = newest.metrics.get("isogon_episodes_total") if self._games else None
        played = f"{newest.env_steps:,} steps" if games is None else f"{games:,.0f} games"
        phrases = [f"{newest.updates:,} updates", played]
        if (episode_return := newest.metrics.get("isogon_episode_return")) is not None:
            phrases.append(f"return {episode_return:.2f}")
        if self._validation is not None:
            phrases.append(f"validation {self._validation:.2f}")
        if clipped := newest.metrics.get("isogon_learner_targets_clipped_ratio"):
            phrases.append(f"clipped {clipped:.1%}" if clipped >= _LEAST_SHARE else f"clipped <{_LEAST_SHARE:.1%}")
        phrases += self._speed()
        if (left := self.seconds_left()) is not None:
            phrases.append(f"eta {_minutes(left)}")
        return phrases

    def seconds_left(self) -> float | None:
        """Until the budget is used up, at the speed of late; None where that cannot be told yet."""
        seconds, first, last = self._span()
        gained = last.share - first.share if first and last else 0.0
        if last is None or last.share >= 1 or gained <= 0 or seconds < _SHORTEST_SECONDS:
            return None
        return (1 - last.share) * seconds / gained

    def _speed(self) -> list[str]:
        seconds, first, last = self._span()
        if first is None or last is None or seconds < _SHORTEST_SECONDS:
            return []
        steps, updates = last.env_steps - first.env_steps, last.updates - first.updates
        if steps > 0:
            return [f"{steps / seconds:,.0f} steps/s"]
        return [f"{updates / seconds:,.0f} updates/s"] if updates > 0 else []

    def _span(self) -> tuple[float, Progress | None, Progress | None]:
        if len(self._window) < 2:
            return 0.0, None, self._window[-1][1] if self._window else None
        (began, first), (ended, last) = self._window[0], self._window[-1]
        return ended - began, first, last


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
