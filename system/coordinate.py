"""The one loop body that hands out work and takes in results, whatever the scheduler, the pool and the sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..actors.pools.contract import Pool, WorkFailed
from ..actors.work import PolicyState, WorkResult
from ..schedulers.events import (
    Arrived,
    Assign,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Joined,
    Left,
    Published,
    Scheduler,
    Tick,
    Token,
    WakeAt,
    WorkKind,
)


class Sink(Protocol):
    """Where results go: a replay for rollouts, a global model for updates."""

    def validate(self, result: WorkResult) -> None:
        """Check a result whole before anything is told of it. Raises ValueError where it is not fit to be applied."""
        ...

    def commit(self, entries: list[tuple[WorkResult, float]]) -> None:
        """Apply these results together, each with its weight."""
        ...


@dataclass(frozen=True)
class Committed:
    """What is left to say of a result that went to the sink.

    Attributes:
        token, kind, version, amount, samples: as in the result.
        staleness: versions that were published since the one it was done with.
    """

    token: Token
    kind: WorkKind
    version: int
    amount: int
    samples: int
    staleness: int


@dataclass(frozen=True)
class Figures:
    """How the work stands.

    Attributes:
        workers: that are there.
        worker_restarts: times that a lost worker's process was replaced, in this attempt.
        in_flight: pieces handed out whose result is not here.
        results_waiting: results that wait for the scheduler's word.
        staleness: in versions, of the last committed result.
        handed_out, committed, dropped: pieces, all attempts together.
        late_results: that came for pieces already dropped, and were discarded.
    """

    workers: int
    worker_restarts: int
    in_flight: int
    results_waiting: int
    staleness: int
    handed_out: int
    committed: int
    dropped: int
    late_results: int


class Coordinator:
    """Carries a scheduler's commands out on a pool and a sink, and keeps the ledger of open pieces.

    Consumes: the pool's events, versions, demands. Produces: assignments, commits, ticks. Waits for: the pool, in
    `step`. Unblocked by: an event, the time the scheduler wants to be woken, the timeout. Every piece handed out ends
    exactly once, committed or dropped; what comes of a dropped one is discarded unseen.

    Staleness is bounded by what is in hand. A worker does its pieces in order, so a result is at most as many versions
    old as are published while the worker does the pieces it holds. Where the W workers take turns with P pieces in
    hand each, and at most k versions are published between two commits, that is ``W * P * k``.

    Args:
        scheduler: says who does how much.
        pool: does it.
        sink: takes the results.
        clock: run seconds, the same as the pool's.
    """

    def __init__(self, scheduler: Scheduler, pool: Pool, sink: Sink, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._pool = pool
        self._sink = sink
        self._clock = clock
        self._open: dict[Token, Assign] = {}
        self._waiting: dict[Token, WorkResult] = {}
        self._workers: set[str] = set()
        self._held: list[tuple[int, WorkKind]] | None = None
        self._version = 0
        self._wake: float | None = None
        self._demanded: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._last_sequence = -1
        self._handed_out = self._committed = self._dropped = self._late = self._staleness = 0
        self._report: list[Committed] = []

    def publish(self, state: PolicyState) -> None:
        """Send a version of the weights out.

        Before the first one, workers that are there already are taken in, so that the first work is shared among them
        all however soon it is demanded.

        Raises:
            ValueError: its number does not go up.
            WorkFailed, PoolExhausted: see `step`.
        """
        if state.version <= self._version:
            raise ValueError(f"version is {state.version}: it must be above {self._version}, the last one")
        if self._version == 0:
            self.step(0.0)
        self._version = state.version
        self._pool.publish(state)
        self._tell(Published(self._clock(), state.version))

    def demand(self, amount: int, kind: WorkKind = "rollout") -> None:
        """Want this much more work done, in the kind's unit. While `drain` runs it is held back."""
        if self._held is not None:
            self._held.append((amount, kind))
            return
        self._tell(Demand(self._clock(), amount, kind))
        self._demanded[kind] += amount

    def outstanding(self, kind: WorkKind = "rollout") -> int:
        """How much was demanded and has not been committed, in the kind's unit; what was overshot is not a debt."""
        return max(0, self._demanded[kind] - self._done[kind])

    def step(self, timeout: float) -> list[Committed]:
        """Take the events that wait, let the scheduler speak, carry out what it says.

        Args:
            timeout: seconds to wait for the first event, where none is there.

        Returns:
            What went to the sink.

        Raises:
            WorkFailed: a worker's code raised, or the sink refused a result.
            PoolExhausted: no worker is left.
        """
        self._report = []
        if self._wake is not None:
            timeout = min(timeout, max(0.0, self._wake - self._clock()))
        for event in self._pool.events(timeout):
            match event:
                case Arrived():
                    self._arrive(event)
                case Joined():
                    self._workers.add(event.worker)
                    self._tell(event)
                case Left():
                    self._workers.discard(event.worker)
                    self._tell(event)
        if self._wake is not None and self._clock() >= self._wake:
            self._wake = None
            self._tell(Tick(self._clock()))
        return self._report

    def drain(self, timeout: float) -> list[Committed]:
        """Step until nothing is in hand; what is demanded meanwhile is handed out afterwards.

        Everything demanded before is done first, so that what a drained run has done does not hang on the moment.

        Raises:
            TimeoutError: work is still in hand after ``timeout`` seconds.
            WorkFailed, PoolExhausted: see `step`.
        """
        deadline = self._clock() + timeout
        self._held, report = [], []
        try:
            while self._open:
                left = deadline - self._clock()
                if left <= 0:
                    raise TimeoutError(f"{len(self._open)} pieces of work are still in hand after {timeout:g} seconds")
                report += self.step(left)
        finally:
            held, self._held = self._held, None
        for amount, kind in held:
            self.demand(amount, kind)
        return report

    def reset_workers(self) -> None:
        """Make every worker begin anew with its next work. Raises RuntimeError while work is in hand."""
        if self._open:
            raise RuntimeError(f"{len(self._open)} pieces are in hand: drain before workers begin anew")
        self._pool.reset_workers()

    def missing(self) -> str:
        """What workers that are not there wait for, in words that name the remedy."""
        return self._pool.missing()

    def figures(self) -> Figures:
        """How the work stands now."""
        return Figures(
            workers=len(self._workers),
            worker_restarts=self._pool.restarts,
            in_flight=len(self._open) - len(self._waiting),
            results_waiting=len(self._waiting),
            staleness=self._staleness,
            handed_out=self._handed_out,
            committed=self._committed,
            dropped=self._dropped,
            late_results=self._late,
        )

    def state_dict(self) -> dict[str, Any]:
        """The ledger's sums and the scheduler's state, as JSON values. Work in hand counts as dropped."""
        return {
            "scheduler": self._scheduler.state_dict(),
            "demanded": dict(self._demanded),
            "done": dict(self._done),
            "handed_out": self._handed_out,
            "committed": self._committed,
            "dropped": self._dropped + len(self._open),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state in a new attempt, before the first step. Raises ValueError for another scheduler's state."""
        if self._workers or self._open:
            raise RuntimeError("a coordinator takes up a state before its first step: workers have joined this one")
        self._scheduler.load_state_dict(state["scheduler"])
        self._demanded = Counter(state["demanded"])
        self._done = Counter(state["done"])
        self._handed_out = state["handed_out"]
        self._committed = state["committed"]
        self._dropped = state["dropped"]

    def check_valid(self) -> None:
        """Assert the ledger's invariants, and the scheduler's."""
        assert self._handed_out == self._committed + self._dropped + len(self._open), "a piece ended twice, or never"
        assert self._waiting.keys() <= self._open.keys(), "a result waits for a piece that has ended"
        working = {token.worker for token in self._open.keys() - self._waiting.keys()}
        assert working <= self._workers, f"work is in hand of workers that left: {working - self._workers}"
        self._scheduler.check_valid()

    def _arrive(self, event: Arrived) -> None:
        result = self._pool.take(event.token)
        assign = self._open.get(event.token)
        if assign is None or event.token in self._waiting:
            self._late += 1
            return
        try:
            self._sink.validate(result)
        except ValueError as error:
            raise WorkFailed(f"{event.worker}'s {assign.kind} {event.token} is refused: {error}") from error
        self._waiting[event.token] = result
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for command in self._scheduler.handle(event):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Assign():
                assert command.token.sequence > self._last_sequence, f"{command.token} is handed out a second time"
                self._last_sequence = command.token.sequence
                self._pool.submit(command)
                self._open[command.token] = command
                self._handed_out += 1
            case Commit():
                self._commit(command)
            case Drop():
                self._waiting.pop(command.token, None)
                self._dropped += self._open.pop(command.token, None) is not None
            case WakeAt():
                self._wake = command.time if self._wake is None else min(self._wake, command.time)

    def _commit(self, command: Commit) -> None:
        results = [(self._waiting[token], weight) for token, weight in command.entries]
        self._sink.commit(results)
        for result, _ in results:
            del self._waiting[result.token], self._open[result.token]
            self._committed += 1
            self._done[result.kind] += result.amount
            self._staleness = self._version - result.version
            self._report.append(
                Committed(result.token, result.kind, result.version, result.amount, result.samples, self._staleness)
            )
