"""What returns can be expected of an environment, judging by episodes of it: for ranges and scales of value heads.

The first games of a poor player do not show the returns of a good one: at CartPole it balances for 20 steps, and later
for 500. So the returns that were seen are not the bounds; they are widened to what the rewards that were seen would
come to in a longer game. A game that goes on for L steps more and then ends returns

    rate (1 - discount^L) / (1 - discount) + discount^L end

(L rate + end without discount), where the *rate* is the mean reward of an episode's steps but its terminal one, and the
*end* the reward of a terminal step. The bounds are the hull of the returns-to-go that were seen and of this, for the
best and the worst rate of the episodes with the best and the worst end, up to the longest game that there can be. The
terminal reward stands apart because it comes once: a goal's reward of 1 bounds the return by 1, not by 1 a step.

No rule sees what no game showed: a reward that nobody has met yet, or one that a good player meets far more often than
the best of these episodes did. What is then clipped is counted and told (see docs/value-ranges.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

_LEAST_WIDTH = 0.1
"""Of a range, as a share of its larger end: returns that are all alike leave room for what comes later."""
_DIGITS = 3
"""Of a range's width: the ends are rounded outwards to the last of them."""


@dataclass
class Hull:
    """The least interval that holds all numbers taken in; ``low`` is above ``high`` before the first one."""

    low: float = math.inf
    high: float = -math.inf

    def take(self, low: float, high: float) -> None:
        """Widen it to hold both."""
        self.low, self.high = min(self.low, low), max(self.high, high)

    def __bool__(self) -> bool:
        """Whether it holds anything."""
        return self.low <= self.high


@dataclass
class ReturnBounds:
    """Takes in episodes' rewards and tells between which bounds returns are to be expected; see the module's docstring.

    Bounds only ever widen, and are homogeneous: rewards a thousand times as large have bounds a thousand times as wide.

    Attributes:
        discount: of one step, in [0, 1].
        longest: steps of the longest game that there can be, >= 1. None: games go on for ever, as they do for a value
            that is bootstrapped where a time limit cuts a game off; without a discount, as long as the longest seen.
        episodes: taken in so far.
    """

    discount: float
    longest: int | None
    episodes: int = 0
    _seen: Hull = field(default_factory=Hull)
    _rate: Hull = field(default_factory=Hull)
    _end: Hull = field(default_factory=Hull)
    _steps_seen: int = 0

    def __post_init__(self) -> None:
        """Check. Raises ValueError."""
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount is {self.discount}: it must be in [0, 1]")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"longest is {self.longest}: a game has at least one step")

    def observe(self, reward: npt.NDArray[np.floating[Any]], terminated: bool) -> None:
        """Take in an episode, or the part of one that was played.

        Args:
            reward: ``[T]``, T >= 1, of its steps.
            terminated: whether it came to its own end, rather than being cut off.

        Raises:
            ValueError: there is no reward, or one that is not finite.
        """
        if reward.ndim != 1 or not reward.size or not np.isfinite(reward).all():
            raise ValueError(f"reward is {reward.dtype}{list(reward.shape)}: it must be [T], T >= 1, and finite")
        rewards = reward.astype(np.float64)
        to_go = lfilter([1.0], [1.0, -self.discount], rewards[::-1])
        self._seen.take(float(to_go.min()), float(to_go.max()))
        if terminated:
            self._end.take(float(rewards[-1]), float(rewards[-1]))
            rewards = rewards[:-1]
        if rewards.size:
            rate = float(rewards.mean())
            self._rate.take(rate, rate)
        self._steps_seen = max(self._steps_seen, len(reward))
        self.episodes += 1

    def bounds(self) -> tuple[float, float]:
        """Lowest and highest return to be expected. Raises ValueError before the first episode."""
        if not self._seen:
            raise ValueError("no episode was observed: there is nothing to tell bounds from")
        hull = Hull(self._seen.low, self._seen.high)
        if self._rate:
            hull.take(self._of_game(self._rate.low, None), self._of_game(self._rate.high, None))
        if self._rate and self._end:
            hull.take(self._of_game(self._rate.low, self._end.low), self._of_game(self._rate.high, self._end.high))
        return hull.low, hull.high

    def seen(self) -> tuple[float, float]:
        """Lowest and highest return-to-go that was seen; infinite, the wrong way round, before the first episode."""
        return self._seen.low, self._seen.high

    def state_dict(self) -> dict[str, Any]:
        """All that was observed, as JSON values."""
        hulls = {"seen": self._seen, "rate": self._rate, "end": self._end}
        return {
            "episodes": self.episodes,
            "steps_seen": self._steps_seen,
            **{name: [hull.low, hull.high] if hull else None for name, hull in hulls.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        self.episodes, self._steps_seen = int(state["episodes"]), int(state["steps_seen"])
        self._seen, self._rate, self._end = (
            Hull(*state[name]) if state[name] is not None else Hull() for name in ("seen", "rate", "end")
        )

    def _of_game(self, rate: float, end: float | None) -> float:
        """The return of the longest game with this mean reward a step, and this last reward."""
        longest = self.longest if self.longest is not None or self.discount < 1 else self._steps_seen
        if longest is None:
            return rate / (1 - self.discount)
        steps = longest if end is None else longest - 1
        if self.discount == 1:
            return rate * steps + (end or 0.0)
        left = self.discount**steps
        return rate * (1 - left) / (1 - self.discount) + left * (end or 0.0)


def range_around(bounds: tuple[float, float], margin: float) -> tuple[float, float]:
    """A range for returns within ``bounds``: widened by ``margin`` times its width at both ends, rounded outwards.

    Raises:
        ValueError: both bounds are 0, which tells nothing of how large returns are.
    """
    low, high = bounds
    largest = max(abs(low), abs(high))
    if largest == 0:
        raise ValueError("every reward was 0, which tells nothing of how large returns are")
    lacking = max(_LEAST_WIDTH * largest - (high - low), 0.0)
    low, high = low - lacking / 2, high + lacking / 2
    extra = margin * (high - low)
    low, high = low - extra, high + extra
    digit = math.floor(math.log10(high - low)) - _DIGITS + 1
    unit = 10.0**digit
    # What is a digit's multiple already must not move by a whole one for its last bit.
    slack = 1e-9
    return round(math.floor(low / unit + slack) * unit, -digit), round(math.ceil(high / unit - slack) * unit, -digit)


def fitting_scale(bounds: tuple[float, float], lowest: float, highest: float) -> float:
    """The least scale by which returns within ``bounds`` are to be divided to lie in ``[lowest, highest]``.

    1 where every return is 0. It follows the largest return, as SimbaV2 does (Lee et al. 2025, "Hyperspherical
    normalization", reward scaling: the running maximum of the return over the largest atom), for the same reason: bins
    end somewhere. DreamerV3's range between the 5th and 95th percentile (Hafner et al. 2023) suits a policy gradient,
    where nothing is cut off; in bins it would cut off the best returns, and it is 0 where fewer than one return in
    twenty is not 0. PopArt (van Hasselt et al. 2016) keeps outputs as they were by an affine change of the last layer;
    logits over bins have no such change.

    Args:
        bounds: of the returns, low <= high.
        lowest: of the range, <= 0. What lies below 0 cannot be made to fit where it is 0.
        highest: of the range, >= 0; likewise.
    """
    low, high = bounds
    needed = [bound / end for bound, end in ((low, lowest), (high, highest)) if bound * end > 0]
    return max(needed, default=1.0)
