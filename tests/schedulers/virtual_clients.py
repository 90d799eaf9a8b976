"""Clients in virtual time around a scheduler, for schedules that can be traced by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from isogon.schedulers.events import (
    Arrived,
    Assign,
    Command,
    Commit,
    Drop,
    Event,
    Joined,
    Published,
    Tick,
    Token,
    WakeAt,
)
from isogon.schedulers.federated import FederatedScheduler


class Given(NamedTuple):
    """Work as it was handed out."""

    time: float
    worker: str
    steps: int
    version: int
    rate_scale: float


class VirtualClients:
    """A client takes a fixed time for each step, and where it is said a wait before.

    Attributes:
        given: what was handed out.
        commits: their time, and of each entry the worker, the weight and the staleness.
        drops: time, worker and reason.
        seconds: of each client, for one step; infinite: it does not answer.
        wait: seconds before a client's piece of work begins.
    """

    def __init__(
        self,
        scheduler: FederatedScheduler,
        seconds: dict[str, float],
        samples: dict[str, int] | None = None,
        wait: Callable[[Assign], float] = lambda assign: 0.0,
    ) -> None:
        self.scheduler = scheduler
        self.seconds = dict(seconds)
        self.wait = wait
        self.given: list[Given] = []
        self.commits: list[tuple[float, list[tuple[str, Any, int]]]] = []
        self.drops: list[tuple[float, str, str]] = []
        self.version = 0
        self._versions: dict[Token, int] = {}
        self._dropped: set[Token] = set()
        self._order = count()
        self._heap: list[tuple[float, int, Event]] = []
        for worker in seconds:
            self.at(Joined(0.0, worker, (samples or {}).get(worker, 10)))
        self.at(Published(0.0, 1))

    def at(self, event: Event) -> None:
        """Let something happen at its time."""
        heapq.heappush(self._heap, (event.time, next(self._order), event))

    def run(self, until: float) -> VirtualClients:
        """Play everything up to this time, with it."""
        while self._heap and self._heap[0][0] <= until:
            self._tell(heapq.heappop(self._heap)[2])
        return self

    def given_at(self, time: float) -> list[tuple[str, int]]:
        """Workers and steps handed out at this time."""
        return [(given.worker, given.steps) for given in self.given if given.time == time]

    def _tell(self, event: Event) -> None:
        if isinstance(event, Published):
            self.version = event.version
        if isinstance(event, Arrived) and event.token in self._dropped:
            return
        for command in self.scheduler.handle(event):
            self._carry_out(command, event.time)
        self.scheduler.check_valid()

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Assign():
                self.given.append(Given(now, command.worker, command.amount, command.version, command.rate_scale))
                self._versions[command.token] = command.version
                compute, wait = self.seconds[command.worker] * command.amount, self.wait(command)
                if (time := now + wait + compute) < float("inf"):
                    token, version, steps = command.token, command.version, command.amount
                    self.at(Arrived(time, command.worker, token, version, steps, 10, 8, compute, wait))
            case Commit():
                entries = [(t.worker, weight, self.version - self._versions[t]) for t, weight in command.entries]
                self.commits.append((now, entries))
                self._tell(Published(now, self.version + 1))
            case Drop():
                self._dropped.add(command.token)
                self.drops.append((now, command.token.worker, command.reason))
            case WakeAt():
                self.at(Tick(command.time))
