"""FedCompass: clients of unequal speed are given unequal amounts of work, so that groups of them arrive together.

Li et al. 2024, "FedCompass: efficient cross-silo federated learning on heterogeneous client devices using a computing
power-aware scheduler" (https://arxiv.org/abs/2309.14675), algorithms 1 and 2.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from .clients import Client, Piece, Result, Silence
from .events import Token
from .federated import FederatedScheduler
from .speed import FEDCOMPASS_SPEED, SpeedOptions
from .staleness import Staleness, polynomial


@dataclass(frozen=True)
class CompassOptions:
    """How Compass shares work out; the defaults are the paper's.

    Attributes:
        q_min: fewest local steps that a client is given, at least 1.
        q_max: most local steps, and those of a client of which nothing is known yet.
        latest_time_factor: lambda. A group waits for its members until so many times the duration that it was made
            for, at least 1.
        alpha: what a commit of everybody's updates counts, in (0, 1].
        staleness: how much less an update counts by the versions that it is behind.
        weights: a client's share p, ``n_i / N`` by the sizes of their data ("samples"), or ``1 / n`` ("equal").
        step_normalised: multiply each weight by ``q_ref / q_k``, so that in a commit an update counts by its direction
            and not by its number of steps, as in FedNova (Wang et al. 2020, https://arxiv.org/abs/2007.07481, equation
            7). ``q_ref`` is the mean of the commit's steps q_k, weighted by the weights: FedNova's effective steps. A
            commit of one update is left as it is.
        rearm: where a group has waited its time and nobody came, let it wait as long again, and so on, so that its
            members are still applied together; off, as in the paper, each of them is late alone.
    """

    q_min: int = 20
    q_max: int = 100
    latest_time_factor: float = 1.2
    alpha: float = 0.9
    staleness: Staleness = field(default_factory=lambda: polynomial(0.5))
    weights: Literal["samples", "equal"] = "samples"
    step_normalised: bool = False
    rearm: bool = False

    def __post_init__(self) -> None:
        if self.q_min < 1:
            raise ValueError(f"q_min is {self.q_min}: it must be at least 1")
        if self.q_max < self.q_min:
            raise ValueError(f"q_max is {self.q_max}: it must be at least q_min, which is {self.q_min}")
        if not 1 <= self.latest_time_factor < math.inf:
            raise ValueError(
                f"latest_time_factor is {self.latest_time_factor}: it must be at least 1, "
                "or a group would not wait for members that are on time"
            )
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is {self.alpha}: it must be above 0 and at most 1")
        if self.weights not in ("samples", "equal"):
            raise ValueError(f"weights is {self.weights!r}: it must be 'samples' or 'equal'")


FEDCOMPASS = CompassOptions()
"""As in the paper."""


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
        paces: seconds that each member takes for q_max steps.
    """

    number: int
    begun: float
    expected: float
    latest: float
    working: dict[str, None] = field(default_factory=dict)
    arrived: dict[str, Token] = field(default_factory=dict)
    paces: dict[str, float] = field(default_factory=dict)
    _by_pace: list[tuple[float, str]] = field(default_factory=list)

    def set_pace(self, name: str, pace: float) -> None:
        """A member is this fast."""
        self.paces[name] = pace
        heapq.heappush(self._by_pace, (pace, name))

    def fastest(self) -> float:
        """The least of the paces; what the heap holds of before is thrown away when it comes to the top."""
        while self.paces.get(self._by_pace[0][1]) != self._by_pace[0][0]:
            heapq.heappop(self._by_pace)
        return self._by_pace[0][0]


class Compass(FederatedScheduler):
    """FedCompass as a state machine.

    A client's first result is applied alone, and tells its speed. From then on it is in one group at a time: it joins
    the group for which it has to do most, if that is from q_min to q_max steps, or else makes one, that arrives when
    another group's fastest member comes back the time after next. A group is applied when all members are there or its
    latest time has passed; then they are given work, the fastest first. Who comes later is given work at once, and its
    update is applied with the next group, whichever that is. ``weight = alpha * staleness(u) * p``.

    Groups that were applied are forgotten at once, and so are groups without members. The cost of an assignment grows
    with the open groups: about ``log(slowest / fastest) / log(q_max / q_min)``, whatever the number of clients.

    Args:
        attempt: of the run, at least 1.
        options: of the algorithm.
        speed, silence, most_failures: see `FederatedScheduler`.
    """

    name: ClassVar[str] = "compass"

    def __init__(
        self,
        attempt: int,
        options: CompassOptions = FEDCOMPASS,
        *,
        speed: SpeedOptions = FEDCOMPASS_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        super().__init__(attempt, speed=speed, silence=silence, most_failures=most_failures)
        self.options = options
        self.groups: dict[int, Group] = {}
        self._made = 0
        self._member: dict[str, int] = {}
        self._latest: list[tuple[float, int]] = []
        self._complete: dict[int, None] = {}
        self._late: dict[Token, None] = {}
        self._idle: dict[str, None] = {}

    def on_ready(self, client: Client) -> None:
        """A client is idle: it joins or makes a group, or, of unknown speed, does q_max steps in none."""
        # One that began anew while its result waits in a group is given work with the group.
        if client.name not in self._member:
            self._idle[client.name] = None

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Apply a client's first result alone; gather any other, or, where its group waited long enough, keep it."""
        number = self._member.get(client.name)
        if number is None:
            self._idle[client.name] = None
            self.commit([(result, self._weight(result))])
            return
        group = self.groups.get(number)
        if group is None or self.now > group.latest:
            self._leave_group(client)
            self._late[result.token] = None
            self._idle[client.name] = None
            return
        del group.working[client.name]
        group.arrived[client.name] = result.token
        group.set_pace(client.name, self._pace(client))
        self._close_if_complete(group)

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """Nobody waits for the client any more."""
        # Without a piece its result is there already, in a group or on the way to it.
        if piece is not None:
            self._leave_group(client)
        self._idle.pop(client.name, None)

    def on_published(self) -> None:
        """Whoever waited for the new version is given work."""
        self._give_to_idle()

    def on_tick(self) -> None:
        """Apply one group that is complete or has waited long enough; where there is none, give work to who is idle."""
        while self._latest and self._latest[0][0] < self.now:
            latest, number = heapq.heappop(self._latest)
            group = self.groups.get(number)
            if group is None or not group.working:
                continue
            if group.arrived:
                self._complete[number] = None
            elif self.options.rearm:
                self._wait_until(group, max(latest + (latest - group.begun), self.now))
            else:
                del self.groups[number]
        if self._complete:
            number = next(iter(self._complete))
            del self._complete[number]
            self._apply(self.groups.pop(number))
        else:
            self._give_to_idle()

    def on_closing(self) -> None:
        """What waits in groups and what was late is applied."""
        if self.waiting:
            self.commit(self._weighted(self.waiting))
        self.groups, self._member, self._complete, self._late = {}, {}, {}, {}

    # Groups.

    def _give_to_idle(self) -> None:
        clients = [self.clients[name] for name in self._idle]
        self._idle = {}
        if len(clients) > 1:
            clients.sort(key=self._pace)
        for client in clients:
            if not client.free or client.name in self._member:
                continue
            if client.speed.known:
                self.give(client, self._join(client) or self._make(client))
            else:
                self.give(client, self.options.q_max)

    def _join(self, client: Client) -> int | None:
        """Put the client into the open group for which it does most; the steps, or None where none fits it."""
        q_min, q_max, now, steps_within = self.options.q_min, self.options.q_max, self.now, client.speed.steps_within
        best, most = None, q_min
        for group in self.groups.values():
            if group.expected > now and group.working:
                steps = steps_within(group.expected - now)
                if most <= steps <= q_max:
                    best, most = group, steps
        if best is None:
            return None
        self._add(best, client)
        return most

    def _make(self, client: Client) -> int:
        """Make a group for the client; the steps."""
        options, now = self.options, self.now
        most = -1
        for group in self.groups.values():
            if now < group.latest and group.working:
                steps = client.speed.steps_within(group.latest + group.fastest() - now)
                if most < steps <= options.q_max:
                    most = steps
        steps = options.q_max if most < 0 else max(most, options.q_min)
        duration = client.speed.duration(steps)
        group = Group(self._made, now, now + duration, 0.0)
        self._made += 1
        self.groups[group.number] = group
        self._wait_until(group, now + duration * options.latest_time_factor)
        self._add(group, client)
        return steps

    def _add(self, group: Group, client: Client) -> None:
        group.working[client.name] = None
        group.set_pace(client.name, self._pace(client))
        self._member[client.name] = group.number

    def _wait_until(self, group: Group, latest: float) -> None:
        group.latest = latest
        heapq.heappush(self._latest, (latest, group.number))
        # A result that comes at the latest time is on time; the moment after is the first at which one is late.
        self.wake_at(math.nextafter(latest, math.inf))

    def _leave_group(self, client: Client) -> None:
        number = self._member.pop(client.name, None)
        group = None if number is None else self.groups.get(number)
        if group is not None:
            del group.working[client.name], group.paces[client.name]
            self._close_if_complete(group)

    def _close_if_complete(self, group: Group) -> None:
        if group.working:
            return
        if group.arrived:
            self._complete[group.number] = None
        else:
            del self.groups[group.number]

    def _apply(self, group: Group) -> None:
        for name in group.arrived:
            del self._member[name]
            self._idle[name] = None
        late, self._late = self._late, {}
        self.commit(self._weighted([*late, *group.arrived.values()]))

    def _pace(self, client: Client) -> float:
        """Seconds that it takes for q_max steps; a client of which nothing is known is the fastest."""
        return client.speed.duration(self.options.q_max)

    # Weights.

    def _weight(self, result: Result) -> float:
        options = self.options
        by_samples = options.weights == "samples"
        share = self.share_of(self.clients[result.worker]) if by_samples else 1.0 / len(self.clients)
        return options.alpha * options.staleness(self.staleness_of(result.version)) * share

    def _weighted(self, tokens: Iterable[Token]) -> list[tuple[Result, float]]:
        entries = [(result, self._weight(result)) for result in map(self.waiting.__getitem__, tokens)]
        if not self.options.step_normalised:
            return entries
        total = math.fsum(weight for _, weight in entries)
        reference = math.fsum(weight * result.amount for result, weight in entries) / total
        return [(result, weight * reference / result.amount) for result, weight in entries]

    # State.

    def extra_state(self) -> dict[str, Any]:
        """Groups, who is in which, what is late."""
        return {
            "made": self._made,
            "groups": [
                {
                    "number": group.number,
                    "begun": group.begun,
                    "expected": group.expected,
                    "latest": group.latest,
                    "working": list(group.working),
                    "arrived": {name: str(token) for name, token in group.arrived.items()},
                }
                for group in self.groups.values()
            ],
            "member": dict(self._member),
            "complete": list(self._complete),
            "late": [str(token) for token in self._late],
            "idle": list(self._idle),
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._made = state["made"]
        self.groups = {}
        for entry in state["groups"]:
            arrived = {name: Token.parse(text) for name, text in entry["arrived"].items()}
            group = Group(**{**entry, "working": dict.fromkeys(entry["working"]), "arrived": arrived})
            for name in [*group.working, *arrived]:
                group.set_pace(name, self._pace(self.clients[name]))
            self.groups[group.number] = group
        self._latest = sorted((group.latest, group.number) for group in self.groups.values())
        self._member = dict(state["member"])
        self._complete = dict.fromkeys(state["complete"])
        self._late = dict.fromkeys(map(Token.parse, state["late"]))
        self._idle = dict.fromkeys(state["idle"])

    def check_valid(self) -> None:
        """Also: a client is in one group at most, a result waits in one place, T_a <= T_max."""
        super().check_valid()
        untold = {result.token for result, _ in self._untold}
        gathered = [token for group in self.groups.values() for token in group.arrived.values()]
        places = [*gathered, *self._late, *untold]
        assert len(places) == len(set(places)), "a result waits in two places"
        assert set(places) == set(self.waiting), "a result waits nowhere"
        members = [(name, g.number) for g in self.groups.values() for name in (*g.working, *g.arrived)]
        assert len({name for name, _ in members}) == len(members), "a client is in two groups"
        assert all(self._member[name] == number for name, number in members)
        stragglers = [name for name, number in self._member.items() if number not in self.groups]
        on_the_way = {token.worker for token in untold}
        for name in [*stragglers, *(name for group in self.groups.values() for name in group.working)]:
            assert self.clients[name].training or name in on_the_way, f"{name} is waited for and has no work"
        for group in self.groups.values():
            assert group.working or group.arrived, f"group {group.number} is empty"
            assert group.begun <= group.expected <= group.latest
            assert group.fastest() == min(map(self._pace, (self.clients[n] for n in (*group.working, *group.arrived))))
            assert group.working or group.number in self._complete, f"group {group.number} is complete and waits"
