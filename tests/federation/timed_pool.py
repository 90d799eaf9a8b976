"""A pool of clients in this process that takes time without waiting for it: every run of it is alike."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isogon.actors.pools.contract import PoolEvent
from isogon.actors.work import PolicyState, WorkDoer, WorkResult, payload_nbytes
from isogon.schedulers.events import Arrived, Assign, Joined, Left, Token


class SetClock:
    """Run seconds that somebody sets; otherwise a `RunClock`."""

    def __init__(self) -> None:
        self.base = 0.0
        self.passed = 0.0

    def start(self) -> None:
        """It goes on whenever it is set."""

    def seconds(self) -> float:
        return self.base + self.passed


@dataclass
class Deeds:
    """What a pool's clients did, whatever became of it.

    Attributes:
        updates: by token, everything that was trained.
        acknowledged: tokens, as they were.
        submitted: tokens.
    """

    updates: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)

    def copy(self) -> Deeds:
        return Deeds(dict(self.updates), list(self.acknowledged), list(self.submitted))


class TimedPool:
    """Clients of different speeds; one that is given work has done it after ``seconds_per_step * amount``.

    Args:
        makers: of the workers, by name; all join at the beginning.
        seconds_per_step: by name.
        clock: is set.
        deeds: written down.
        script: events at their times, beside the pool's own: of clients that leave, join, or were never known.
    """

    restarts = 0

    def __init__(
        self,
        makers: Mapping[str, Callable[[], WorkDoer]],
        seconds_per_step: Mapping[str, float],
        clock: SetClock,
        deeds: Deeds,
        script: Sequence[PoolEvent] = (),
    ) -> None:
        self.workers = {name: make() for name, make in makers.items()}
        self.seconds_per_step = seconds_per_step
        self.clock = clock
        self.deeds = deeds
        self.state: PolicyState | None = None
        self.results: dict[Token, WorkResult] = {}
        self.agenda: list[tuple[float, int, PoolEvent]] = []
        self.planned = 0
        self.gone: set[str] = set()
        for name, worker in self.workers.items():
            self.plan(Joined(clock.seconds(), name, worker.samples))
        for event in script:
            self.plan(event)

    def plan(self, event: PoolEvent) -> None:
        heapq.heappush(self.agenda, (event.time, self.planned, event))
        self.planned += 1

    def missing(self) -> str:
        return "everybody is there who ever was"

    def publish(self, state: PolicyState) -> None:
        self.state = state

    def submit(self, assign: Assign) -> None:
        assert self.state is not None
        assert self.state.version == assign.version
        self.deeds.submitted.append(str(assign.token))
        if assign.worker in self.gone:
            return
        result = self.answer(assign, self.state)
        self.results[assign.token] = result
        if result.kind == "train":
            self.deeds.updates[str(assign.token)] = result.payload
        seconds = self.seconds_per_step[assign.worker] * assign.amount
        self.plan(arrived(result, self.clock.seconds() + seconds, seconds))

    def answer(self, assign: Assign, state: PolicyState) -> WorkResult:
        return self.workers[assign.worker].run(assign, state)

    def events(self, timeout: float) -> list[PoolEvent]:
        """What is due next, one at a time, and then whatever has the same time."""
        until = self.clock.seconds() + timeout
        if not self.agenda or self.agenda[0][0] > until:
            self.clock.passed += min(timeout, 1e6)
            return []
        time, _, event = heapq.heappop(self.agenda)
        events = [event]
        while self.agenda and self.agenda[0][0] == time:
            events.append(heapq.heappop(self.agenda)[2])
        self.clock.passed = max(time - self.clock.base, self.clock.passed)
        for event in events:
            if isinstance(event, Left):
                self.gone.add(event.worker)
            elif isinstance(event, Joined):
                self.gone.discard(event.worker)
        return events

    def take(self, token: Token) -> WorkResult:
        return self.results[token]

    def acknowledge(self, token: Token) -> None:
        self.deeds.acknowledged.append(str(token))

    def reset_workers(self) -> None:
        """Nobody asks for it."""

    def close(self) -> None:
        """Nothing is open."""


def arrived(result: WorkResult, time: float, seconds: float) -> Arrived:
    """That a result is there."""
    return Arrived(
        time=time,
        worker=result.token.worker,
        token=result.token,
        version=result.version,
        amount=result.amount,
        samples=result.samples,
        nbytes=payload_nbytes(result),
        compute_seconds=seconds,
        link_seconds=0.0,
    )
