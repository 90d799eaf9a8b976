"""FedCompass's groups of clients that are to arrive together, and which of them a client fits into."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        paces: seconds that each member takes for the most steps there are.
        back: when the fastest member would be back with the most steps, did it leave at ``latest``.
    """

    number: int
    begun: float
    expected: float
    latest: float
    working: dict[str, None] = field(default_factory=dict)
    arrived: dict[str, Token] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    back: float = math.nan
    _by_pace: list[tuple[float, str]] = field(default_factory=list)

    def set_pace(self, name: str, pace: float) -> None:
        """A member is this fast."""
        self.paces[name] = pace
        heapq.heappush(self._by_pace, (pace, name))

    def fastest(self) -> float:
        """The least of the paces. What the heap holds of before is thrown away when it comes to the top."""
        while self.paces.get(self._by_pace[0][1]) != self._by_pace[0][0]:
            heapq.heappop(self._by_pace)
        return self._by_pace[0][0]

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "number": self.number,
            "begun": self.begun,
            "expected": self.expected,
            "latest": self.latest,
            "working": list(self.working),
            "arrived": {name: str(token) for name, token in self.arrived.items()},
            "paces": dict(self.paces),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Group:
        """The inverse of `state_dict`."""
        arrived = {name: Token.parse(text) for name, text in state["arrived"].items()}
        group = cls(**{**state, "working": dict.fromkeys(state["working"]), "arrived": arrived, "paces": {}})
        for name, pace in state["paces"].items():
            group.set_pace(name, pace)
        return group


class OpenGroups:
    """The groups that a client may join or take its bearings from: somebody works in them, until their latest time.

    They are kept in the order of ``expected`` and of ``back``, so that either question looks at a few of them only,
    however many there are.
    """

    def __init__(self) -> None:
        self._groups: dict[int, Group] = {}
        self._by_expected: list[tuple[float, int]] = []
        self._by_back: list[tuple[float, int]] = []

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def put(self, group: Group) -> None:
        """Open a group with members, or take in that its members, their paces or its latest time are others now."""
        back = group.latest + group.fastest()
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
        index = _first_beyond(self._by_expected, speed, now, q_max) - 1
        if index < 0 or (most := speed.steps_within(self._by_expected[index][0] - now)) < q_min:
            return None
        number = self._by_expected[index][1]
        while index > 0 and speed.steps_within(self._by_expected[index - 1][0] - now) == most:
            index -= 1
            number = max(number, self._by_expected[index][1])
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
        assert all(group.working and group.back == group.latest + group.fastest() for group in self)


def _first_beyond(times: list[tuple[float, int]], speed: Speed, now: float, q_max: int) -> int:
    """Index of the first of these times until which a client does more than q_max steps."""
    index = bisect_left(times, (now + speed.duration(q_max + 1),))
    # Rounding may have put the boundary beside what `steps_within` says.
    while index < len(times) and speed.steps_within(times[index][0] - now) <= q_max:
        index += 1
    while index > 0 and speed.steps_within(times[index - 1][0] - now) > q_max:
        index -= 1
    return index
