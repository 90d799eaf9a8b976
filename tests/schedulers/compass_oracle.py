"""FedCompass, slowly: clients, clock and server in one loop, straight from the algorithm."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .virtual_clock import Applied, Given, StepTime, Trace


class Update(NamedTuple):
    client: str
    steps: int
    version: int


@dataclass(eq=False)
class Group:
    expected: float
    latest: float
    working: list[str] = field(default_factory=list)
    arrived: list[str] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)


class Oracle:
    """With alpha 0.9 and the polynomial staleness of exponent 0.5."""

    def __init__(self, samples: Mapping[str, int], step_time: StepTime, q_min: int, q_max: int, factor: float) -> None:
        self.samples, self.step_time = samples, step_time
        self.q_min, self.q_max, self.factor = q_min, q_max, factor
        self.trace: Trace = []
        self.heap: list[tuple[float, int, int, Update | Group, float]] = []
        self.done: Counter[str] = Counter()
        self.speed: dict[str, float] = {}
        self.group_of: dict[str, Group] = {}
        self.groups: list[Group] = []
        self.general: list[Update] = []
        self.version = self.sequence = 0
        for client in samples:
            self.send(client, q_max, 0.0)

    def play(self, assignments: int) -> Trace:
        while self.done.total() < assignments:
            time, _, _, what, begun = heapq.heappop(self.heap)
            if isinstance(what, Group):
                if what in self.groups and what.updates:
                    self.aggregate(what, time)
            else:
                self.arrive(what, time, begun)
        return self.trace

    def push(self, time: float, rank: int, what: Update | Group, begun: float) -> None:
        self.sequence += 1
        heapq.heappush(self.heap, (time, rank, self.sequence, what, begun))

    def send(self, client: str, steps: int, t: float) -> None:
        self.trace.append(Given(t, client, steps, self.version))
        self.push(t + steps * self.step_time(client, self.done[client]), 1, Update(client, steps, self.version), t)
        self.done[client] += 1

    def arrive(self, update: Update, t: float, begun: float) -> None:
        client, observed = update.client, (t - begun) / update.steps
        old = self.speed.get(client)
        self.speed[client] = observed if old is None else (1.0 - 0.9) * old + 0.9 * observed
        if old is None:
            self.apply([update], t)
            self.assign(client, t)
            return
        group = self.group_of[client]
        group.working.remove(client)
        if t > group.latest:
            if not group.working and group in self.groups:
                self.groups.remove(group)
            self.general.append(update)
            self.assign(client, t)
        else:
            group.arrived.append(client)
            group.updates.append(update)
            if not group.working:
                self.aggregate(group, t)

    def apply(self, updates: list[Update], t: float) -> None:
        entries = []
        for client, steps, version in updates:
            behind = self.version - version
            share = self.samples[client] / sum(self.samples.values())
            entries.append((client, steps, behind, 0.9 * (behind + 1.0) ** -0.5 * share))
        self.trace.append(Applied(t, tuple(sorted(entries))))
        self.version += 1

    def aggregate(self, group: Group, t: float) -> None:
        self.apply(self.general + group.updates, t)
        self.general = []
        group.expected = group.latest = -math.inf
        for client in sorted(group.arrived, key=lambda c: self.speed[c]):
            self.assign(client, t)
        if not group.working:
            self.groups.remove(group)

    def assign(self, client: str, t: float) -> None:
        best, most = None, 0
        for group in self.groups:
            steps = (group.expected - t) / self.speed[client]
            if self.q_min <= steps < self.q_max + 1 and math.floor(steps) >= most:
                best, most = group, math.floor(steps)
        if best is None:
            best, most = self.create(client, t)
        best.working.append(client)
        self.group_of[client] = best
        self.send(client, most, t)

    def create(self, client: str, t: float) -> tuple[Group, int]:
        kept = []
        for group in self.groups:
            if t < group.latest:
                fastest = min(self.speed[member] for member in group.working + group.arrived)
                kept.append(math.floor((group.latest + fastest * self.q_max - t) / self.speed[client]))
        steps = max((q for q in kept if q <= self.q_max), default=self.q_max)
        steps = max(steps, self.q_min)
        took = steps * self.speed[client]
        made = Group(t + took, t + took * self.factor)
        self.groups.append(made)
        self.push(math.nextafter(made.latest, math.inf), 0, made, 0.0)
        return made, steps
