"""FedCompass's groups of clients that are to arrive together, and which of them a client fits into."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from .clients import Result
from .events import Token
from .speed import Speed


@dataclass(slots=True)
class Group:
    """Clients that are to arrive together.

    Attributes:
        number: from 0, in the order of making.
        begun: when it was made; all times are in run seconds.
        expected: T_a, when its members should arrive.
        latest: T_max; after it nobody is waited for.
        working: members that have not arrived, in the order of joining.
        arrived: results of those that have, in the order of arrival.
        back: when the fastest member would be back with the most steps, did it leave at ``latest``.
    """

    number: int
    begun: float
    expected: float
    latest: float
    working: dict[str, None] = field(default_factory=dict)
    arrived: dict[str, Result] = field(default_factory=dict)
    back: float = math.nan
    _by_pace: list[tuple[float, str]] = field(default_factory=list)

    def set_pace(self, name: str, pace: float) -> None:
        """A member is this fast now: it takes so many seconds for the most steps there are."""
        heapq.heappush(self._by_pace, (pace, name))

    def fastest(self, pace_of: Callable[[str], float]) -> float:
        """The least of the members' paces. What the heap holds of before is mended when it comes to the top."""
        while True:
            pace, name = self._by_pace[0]
            if name not in self.working and name not in self.arrived:
                heapq.heappop(self._by_pace)
            elif (now := pace_of(name)) != pace:
                heapq.heapreplace(self._by_pace, (now, name))
            else:
                return pace

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "number": self.number,
            "begun": self.begun,
            "expected": self.expected,
            "latest": self.latest,
            "working": list(self.working),
            "arrived": [str(result.token) for result in self.arrived.values()],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], waiting: Mapping[Token, Result], pace_of: Callable[[str], float]) -> Group:
        """The inverse of `state_dict`, given the results that wait and the members' paces."""
        arrived = {token.worker: waiting[token] for token in map(Token.parse, state["arrived"])}
        group = cls(**{**state, "working": dict.fromkeys(state["working"]), "arrived": arrived})
        for name in (*group.working, *arrived):
            group.set_pace(name, pace_of(name))
        return group


class OpenGroups:
    """The groups that a client may join or take its bearings from: somebody works in them, until their latest time.

    They are kept in the order of ``expected`` and of ``back``, so that either question looks at a few of them only,
    however many there are.

    Args:
        pace_of: seconds that a client takes for the most steps there are, by its name.
    """

    def __init__(self, pace_of: Callable[[str], float]) -> None:
        self._pace_of = pace_of
        self._groups: dict[int, Group] = {}
        self._by_expected: list[tuple[float, int]] = []
        self._by_back: list[tuple[float, int]] = []

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def put(self, group: Group) -> None:
        """Open a group with members, or take in that its members, their paces or its latest time are others now."""
        back = group.latest + group.fastest(self._pace_of)
        if group.number not in self._groups:
            self._groups[group.number] = group
            insort(self._by_expected, (group.expected, group.number))
        elif back != group.back:
            del self._by_back[bisect_left(self._by_back, (group.back, group.number))]
        else:
            return
        group.back = back
        insort(self._by_back, (back, group.number))

    def remove(self, group: Group) -> None:
        """Nobody joins it any more. One that is not open stays so."""
        if self._groups.pop(group.number, None):
            del self._by_expected[bisect_left(self._by_expected, (group.expected, group.number))]
            del self._by_back[bisect_left(self._by_back, (group.back, group.number))]

    def to_join(self, speed: Speed, now: float, q_min: int, q_max: int) -> tuple[Group, int] | None:
        """The group for which a client has to do most steps, from q_min to q_max, and the steps.

        Of groups that come to the same steps, the one that was made last.
        """
        times = self._by_expected
        end = _first_beyond(times, speed, now, q_max)
        if end == 0 or (most := speed.steps_within(times[end - 1][0] - now)) < q_min:
            return None
        first = end - 1
        # A slow client comes to the same steps for many groups.
        if first > 0 and speed.steps_within(times[first - 1][0] - now) == most:
            first = _first_beyond(times, speed, now, most - 1)
        number = max(map(itemgetter(1), times[first:end]))
        return self._groups[number], most

    def to_follow(self, speed: Speed, now: float, q_max: int) -> int | None:
        """The most steps, at most q_max, with which a client is back when the fastest of some group is.

        None where there are no such groups. Below 0 it is not, for nobody is back in the past.
        """
        index = _first_beyond(self._by_back, speed, now, q_max)
        while index > 0:
            index -= 1
            back, number = self._by_back[index]
            if now < self._groups[number].latest:
                return speed.steps_within(back - now)
        return None

    def check_valid(self) -> None:
        """Assert that both orders hold every group, by what it is now."""
        assert self._by_expected == sorted((group.expected, number) for number, group in self._groups.items())
        assert self._by_back == sorted((group.back, number) for number, group in self._groups.items())
        assert all(group.working and group.back == group.latest + group.fastest(self._pace_of) for group in self)


def _first_beyond(times: list[tuple[float, int]], speed: Speed, now: float, steps: int) -> int:
    """Index of the first of these times until which a client does more than so many steps."""
    index = bisect_left(times, (now + speed.duration(steps + 1),))
    # Rounding may have put the boundary beside what `steps_within` says.
    while index < len(times) and speed.steps_within(times[index][0] - now) <= steps:
        index += 1
    while index > 0 and speed.steps_within(times[index - 1][0] - now) > steps:
        index -= 1
    return index
