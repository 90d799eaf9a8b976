"""Clients and a server in virtual time, for schedulers of clients."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from isogon.schedulers.events import Arrived, Assign, Command, Commit, Event, Joined, Published, Tick, Token, WakeAt
from isogon.schedulers.federated import FederatedScheduler

StepTime: TypeAlias = Callable[[str, int], float]
"""Seconds per local step of a client's how-manieth piece of work."""


class Given(NamedTuple):
    time: float
    client: str
    steps: int
    version: int


class Applied(NamedTuple):
    """Entries are (client, steps, staleness, weight), by client."""

    time: float
    entries: tuple[tuple[str, int, int, float], ...]


Trace: TypeAlias = list[Given | Applied]


class VirtualClock:
    """Plays a run. Of what happens at one time the tick comes first, then answers in the order of their assignments."""

    def __init__(self, scheduler: FederatedScheduler, samples: Mapping[str, int], step_time: StepTime) -> None:
        self.scheduler = scheduler
        self.step_time = step_time
        self.trace: Trace = []
        self.version = 0
        self.done: Counter[str] = Counter()
        self.open: dict[Token, Assign] = {}
        self.answers: list[tuple[float, int, Assign]] = []
        self.wake = math.inf
        for client, number in samples.items():
            self.tell(Joined(0.0, client, number))
        self.tell(Published(0.0, 0))

    def tell(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event)
        committed = False
        for command in commands:
            match command:
                case Assign():
                    self.trace.append(Given(event.time, command.worker, command.amount, command.version))
                    seconds = command.amount * self.step_time(command.worker, self.done[command.worker])
                    self.done[command.worker] += 1
                    self.open[command.token] = command
                    heapq.heappush(self.answers, (event.time + seconds, command.token.sequence, command))
                case Commit():
                    self.apply(event.time, command)
                    committed = True
                case WakeAt():
                    self.wake = min(self.wake, command.time)
        if committed:
            self.version += 1
            self.tell(Published(event.time, self.version))
        return commands

    def apply(self, time: float, commit: Commit) -> None:
        entries = []
        for token, weight in commit.entries:
            assign = self.open.pop(token)
            entries.append((assign.worker, assign.amount, self.version - assign.version, weight))
        self.trace.append(Applied(time, tuple(sorted(entries))))

    def step(self) -> None:
        """What happens next, and what comes of it."""
        if self.answers[0][0] < self.wake:
            time, _, assign = heapq.heappop(self.answers)
            self.tell(Arrived(time, assign.worker, assign.token, assign.version, assign.amount, 1, 1, 0.0, 0.0))
        else:
            time, self.wake = self.wake, math.inf
            self.tell(Tick(time))

    def play(self, assignments: int) -> Trace:
        """Go on until so many assignments were made in all."""
        while self.done.total() < assignments:
            self.step()
        return self.trace
