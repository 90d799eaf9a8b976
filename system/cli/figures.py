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
_FEW_STEPS = 10
"""A rate below this has a decimal."""
_STALENESS = "isogon_federation_staleness_versions"


class _Window:
    """What a run told in the last seconds.

    Args:
        clock: seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: deque[tuple[float, Progress]] = deque()

    def take(self, progress: Progress) -> None:
        """The run has come further."""
        now = self._clock()
        self._told.append((now, progress))
        while len(self._told) > 2 and now - self._told[1][0] >= _WINDOW_SECONDS:
            self._told.popleft()

    @property
    def newest(self) -> Progress | None:
        """The last that was told."""
        return self._told[-1][1] if self._told else None

    def gain(self, of: Callable[[Progress], float]) -> tuple[float, float]:
        """How much a figure rose within the window, and in how many seconds; zeros where that cannot be told yet."""
        if len(self._told) < 2:
            return 0.0, 0.0
        (began, first), (ended, last) = self._told[0], self._told[-1]
        return of(last) - of(first), ended - began

    def rate(self, of: Callable[[Progress], float]) -> float:
        """How much a figure rises in a second; 0 where it does not, or that cannot be told yet."""
        gained, seconds = self.gain(of)
        return max(gained, 0.0) / seconds if seconds >= _SHORTEST_SECONDS else 0.0

    def seconds_left(self) -> float | None:
        """Until the budget is used up, at the speed of late; None where that cannot be told yet."""
        share, rate = (self.newest.share if self.newest else 1.0), self.rate(lambda progress: progress.share)
        return (1 - share) / rate if share < 1 and rate > 0 else None


class Figures:
    """Takes in what a training run tells, and gives it as short phrases.

    Args:
        games: say how many games were played, where the run counts them, rather than steps.
        clock: seconds, only ever rising.

    Attributes:
        evaluates_on: what evaluations are on.
    """

    evaluates_on = "validation"

    def __init__(self, games: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._games = games
        self._window = _Window(clock)
        self._validation: float | None = None

    def take(self, progress: Progress) -> None:
        """The run has come further."""
        self._window.take(progress)

    def take_evaluation(self, scores: Mapping[str, float]) -> None:
        """An evaluation on the validation set is in."""
        self._validation = scores.get("mean_return", self._validation)

    def phrases(self) -> list[str]:
        """What there is to tell now, such as ``["1,200 updates", "return -4.12"]``."""
        newest = self._window.newest
        if newest is None:
            return []
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
        return phrases + _eta(self.seconds_left())

    def seconds_left(self) -> float | None:
        """Until the budget is used up, at the speed of late; None where that cannot be told yet."""
        return self._window.seconds_left()

    def _speed(self) -> list[str]:
        if (steps := self._window.rate(lambda progress: progress.env_steps)) > 0:
            return [f"{steps:,.0f} steps/s"]
        updates = self._window.rate(lambda progress: progress.updates)
        return [f"{updates:,.0f} updates/s"] if updates > 0 else []


class FederationFigures:
    """Takes in what a federation tells, and gives it as short phrases.

    Args:
        clock: seconds, only ever rising.

    Attributes:
        evaluates_on: what evaluations are on.
    """

    evaluates_on = "global model"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = _Window(clock)
        self._score: float | None = None

    def take(self, progress: Progress) -> None:
        """The federation has come further."""
        self._window.take(progress)

    def take_evaluation(self, scores: Mapping[str, float]) -> None:
        """An evaluation of the global model is in."""
        self._score = scores.get("score", self._score)

    def phrases(self) -> list[str]:
        """What there is to tell now, such as ``["version 12", "40 updates", "4 clients", "score 0.812"]``."""
        newest = self._window.newest
        if newest is None:
            return []
        phrases = [f"version {newest.version:,}", f"{newest.updates:,} updates"]
        if (clients := newest.metrics.get("isogon_pool_workers")) is not None:
            phrases.append(f"{clients:,.0f} client{'' if clients == 1 else 's'}")
        if self._score is not None:
            phrases.append(f"score {self._score:.3f}")
        if (staleness := self._staleness()) is not None:
            phrases.append(f"staleness {staleness:.1f}")
        if dropped := newest.metrics.get("isogon_pool_results_dropped_total"):
            phrases.append(f"{dropped:,.0f} dropped")
        if (steps := self._window.rate(lambda progress: progress.env_steps)) > 0:
            phrases.append(f"{steps:,.0f} steps/s" if steps >= _FEW_STEPS else f"{steps:.1f} steps/s")
        return phrases + _eta(self._window.seconds_left())

    def _staleness(self) -> float | None:
        """Of the updates applied of late, in versions; None where there are none."""
        summed, _ = self._window.gain(lambda progress: progress.metrics.get(f"{_STALENESS}_sum", 0.0))
        count, _ = self._window.gain(lambda progress: progress.metrics.get(f"{_STALENESS}_count", 0.0))
        return summed / count if count > 0 else None


def _eta(seconds_left: float | None) -> list[str]:
    return [] if seconds_left is None else [f"eta {_minutes(seconds_left)}"]


def _minutes(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
