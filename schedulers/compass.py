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

from .arrival_groups import Group, OpenGroups
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


class Compass(FederatedScheduler):
    """FedCompass as a state machine.

    A client's first result is applied alone, and tells its speed. From then on it is in one group at a time: it joins
    the group for which it has to do most, if that is from q_min to q_max steps, or else makes one, that arrives when
    another group's fastest member comes back the time after next. A group is applied when all members are there or its
    latest time has passed; then they are given work, the fastest first. Who comes later is given work at once, and its
    update is applied with the next group, whichever that is. ``weight = alpha * staleness(u) * p``.

    Groups that were applied are forgotten at once, and so are groups without members. An assignment costs
    O(log groups).

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
        self._open = OpenGroups(self._pace_of)
        self._made = 0
        self._latest: list[tuple[float, int]] = []
        self._complete: dict[int, None] = {}
        self._late: list[Result] = []
        self._idle: dict[str, Client] = {}

    def on_ready(self, client: Client) -> None:
        """A client is idle: it joins or makes a group, or, of unknown speed, does q_max steps in none."""
        # One that began anew while its result waits in a group is given work with the group.
        if not any(client.name in group.arrived for group in self.groups.values()):
            self._idle[client.name] = client

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Apply a client's first result alone; gather any other, or, where its group waited long enough, keep it."""
        if piece.note is None:
            self._idle[client.name] = client
            self.commit([(result, self._weight(result, client))])
            return
        self._end_waiting()
        group = self.groups.get(piece.note)
        if group is None or self.now > group.latest:
            self._late.append(result)
            self._idle[client.name] = client
        else:
            group.arrived[client.name] = result
            group.set_pace(client.name, self._pace(client))
        if group is not None:
            del group.working[client.name]
            self._members_changed(group)

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """Nobody waits for the client any more."""
        group = None if piece is None or piece.note is None else self.groups.get(piece.note)
        if group is not None:
            del group.working[client.name]
            self._members_changed(group)

    def on_published(self) -> None:
        """Whoever waited for the new version is given work."""
        self._end_waiting()
        self._give_to_idle()

    def on_tick(self) -> None:
        """Apply one group that is complete or has waited long enough; where there is none, give work to who is idle."""
        self._end_waiting()
        if self._complete:
            number = next(iter(self._complete))
            del self._complete[number]
            self._apply(self.groups.pop(number))
        elif self._idle:
            self._give_to_idle()

    def on_closing(self) -> None:
        """What waits in groups and what was late is applied."""
        if self.waiting:
            self.commit(self._weighted(self.waiting.values()))
        self.groups, self._open, self._complete, self._late = {}, OpenGroups(self._pace_of), {}, []

    # Groups.

    def _give_to_idle(self) -> None:
        clients = [client for client in self._idle.values() if client.free]
        self._idle = {}
        if len(clients) > 1:
            clients.sort(key=self._pace)
        options, now = self.options, self.now
        for client in clients:
            if not client.speed.known:
                self.give(client, options.q_max)
                continue
            found = self._open.to_join(client.speed, now, options.q_min, options.q_max)
            group, steps = self._make_group(client) if found is None else found
            group.working[client.name] = None
            group.set_pace(client.name, self._pace(client))
            self._open.put(group)
            self.give(client, steps, note=group.number)

    def _make_group(self, client: Client) -> tuple[Group, int]:
        """A new group for the client, not open yet, and its steps."""
        options, now = self.options, self.now
        followed = self._open.to_follow(client.speed, now, options.q_max)
        steps = options.q_max if followed is None else max(followed, options.q_min)
        duration = client.speed.duration(steps)
        group = Group(self._made, now, now + duration, 0.0)
        self._made += 1
        self.groups[group.number] = group
        self._wait_until(group, now + duration * options.latest_time_factor)
        return group, steps

    def _wait_until(self, group: Group, latest: float) -> None:
        group.latest = latest
        heapq.heappush(self._latest, (latest, group.number))
        # A result that comes at the latest time is on time; the moment after is the first at which one is late.
        self.wake_at(math.nextafter(latest, math.inf))

    def _end_waiting(self) -> None:
        """No group waits any longer than its latest time."""
        while self._latest and self._latest[0][0] < self.now:
            latest, number = heapq.heappop(self._latest)
            group = self.groups.get(number)
            if group is None or not group.working:
                continue
            if self.options.rearm and not group.arrived:
                self._wait_until(group, max(latest + (latest - group.begun), self.now))
                self._open.put(group)
                continue
            self._open.remove(group)
            if group.arrived:
                self._complete[number] = None
            else:
                del self.groups[number]

    def _members_changed(self, group: Group) -> None:
        """Where nobody works in it any more the group is complete, or, where nobody arrived either, forgotten."""
        if group.working:
            if group.number not in self._complete:
                self._open.put(group)
            return
        self._open.remove(group)
        if group.arrived:
            self._complete[group.number] = None
        else:
            del self.groups[group.number]

    def _apply(self, group: Group) -> None:
        for name in group.arrived:
            self._idle[name] = self.clients[name]
        late, self._late = self._late, []
        self.commit(self._weighted([*late, *group.arrived.values()]))

    def _pace(self, client: Client) -> float:
        """Seconds that it takes for q_max steps; a client of which nothing is known is the fastest."""
        return client.speed.duration(self.options.q_max)

    def _pace_of(self, name: str) -> float:
        return self.clients[name].speed.duration(self.options.q_max)

    # Weights.

    def _weight(self, result: Result, client: Client) -> float:
        options = self.options
        by_samples = options.weights == "samples"
        share = self.share_of(client) if by_samples else 1.0 / len(self.clients)
        return options.alpha * options.staleness(self.staleness_of(result.version)) * share

    def _weighted(self, results: Iterable[Result]) -> list[tuple[Result, float]]:
        entries = [(result, self._weight(result, self.clients[result.worker])) for result in results]
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
            "groups": [group.state_dict() for group in self.groups.values()],
            "complete": list(self._complete),
            "late": [str(result.token) for result in self._late],
            "idle": list(self._idle),
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._made = state["made"]
        groups = [Group.of(entry, self.waiting, self._pace_of) for entry in state["groups"]]
        self.groups = {group.number: group for group in groups}
        self._complete = dict.fromkeys(state["complete"])
        self._open = OpenGroups(self._pace_of)
        for group in self.groups.values():
            if group.number not in self._complete:
                self._open.put(group)
        self._latest = sorted((group.latest, group.number) for group in self.groups.values())
        self._late = [self.waiting[Token.parse(text)] for text in state["late"]]
        self._idle = {name: self.clients[name] for name in state["idle"]}

    def check_valid(self) -> None:
        """Also: a client is in one group at most, a result waits in one place, T_a <= T_max."""
        super().check_valid()
        gathered = [result for group in self.groups.values() for result in group.arrived.values()]
        places = [result.token for result in [*gathered, *self._late, *(result for result, _ in self._untold)]]
        assert sorted(places) == sorted(self.waiting), "a result waits in two places, or nowhere"
        pieces = [client.training for client in self.clients.values() if client.training]
        pieces += [piece for _, piece in self._untold]
        expected = {(piece.token.worker, piece.note) for piece in pieces if piece.note in self.groups}
        working = {(name, group.number) for group in self.groups.values() for name in group.working}
        assert working == expected, "a group waits for others than work for it"
        members = [name for group in self.groups.values() for name in (*group.working, *group.arrived)]
        assert len(members) == len(set(members)), "a client is in two groups"
        for group in self.groups.values():
            assert group.working or group.arrived, f"group {group.number} is empty"
            assert group.working or group.number in self._complete, f"group {group.number} is complete and waits"
            assert group.begun <= group.expected <= group.latest
            paces = [self._pace_of(name) for name in (*group.working, *group.arrived)]
            assert group.fastest(self._pace_of) == min(paces)
        assert {g.number for g in self._open} == self.groups.keys() - self._complete.keys(), "a group is not open"
        self._open.check_valid()
