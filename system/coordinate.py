"""The one loop body that hands out work and takes in results, whatever the scheduler, the pool and the sink."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..actors.pools.contract import Pool, WorkFailed
from ..actors.work import PolicyState, WorkResult
from ..schedulers.events import (
    Arrived,
    Assign,
    Closing,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Failed,
    Joined,
    Left,
    Published,
    Scheduler,
    Tick,
    Token,
    WakeAt,
    WorkKind,
)


class ResultRefused(ValueError):
    """A result is not fit to be applied. Its piece ends dropped, and the run goes on without it."""


class CommitRefused(ValueError):
    """Results cannot be applied together. Pieces at fault end dropped, and the run goes on without them.

    Attributes:
        tokens: the pieces at fault, where the others can be applied without them; otherwise all are.
    """

    def __init__(self, message: str, tokens: Collection[Token] = ()) -> None:
        super().__init__(message)
        self.tokens = frozenset(tokens)


class Sink(Protocol):
    """Where results go: a replay for rollouts, a global model for updates."""

    def admit(self, result: WorkResult, arrived: Arrived) -> WorkResult:
        """Check a result whole, before anything is told of it, and keep it for its commit.

        Returns:
            What the coordinator holds of it until then: the result, or one without payload where that is kept on disk.

        Raises:
            ResultRefused: it is not fit to be applied; that is its worker's fault, and the run can go on.
            ValueError: it is not fit to be applied, and the run cannot go on.
        """
        ...

    def commit(self, entries: list[tuple[WorkResult, float]]) -> PolicyState | None:
        """Apply these results together, each with its weight.

        Returns:
            The weights' next version, where one comes of it: it is published before anything else happens.

        Raises:
            CommitRefused: they cannot be applied together. Nothing is applied then. Without results it is never raised.
        """
        ...

    def discard(self, result: WorkResult) -> None:
        """Forget a result that was admitted and will not be committed."""
        ...


Observer = Callable[[float, Event | Command], None]
"""Told, with the run seconds, of each event before the scheduler hears it, and of each command once it is carried out:
of a commit only with what was applied, and of what was not by a drop."""


@dataclass(frozen=True)
class Committed:
    """What is left to say of a result that went to the sink.

    Attributes:
        token, kind, version, amount, samples: as in the result.
        staleness: versions that were published since the one it was done with.
        weight: as it was committed with.
        stats: as in the result.
    """

    token: Token
    kind: WorkKind
    version: int
    amount: int
    samples: int
    staleness: int
    weight: float
    stats: Mapping[str, float]


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
        refused: results that were not fit to be applied.
        failed: pieces at which a worker's code raised, in this attempt.
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
    refused: int = 0
    failed: int = 0


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
        observer: told of all that happens.
        before_publishing: called when a commit made a new version, before anybody is given it: the moment to write a
            checkpoint, for all that was committed is in the ledger, and nothing hangs on the new version yet.
        say: told in one line of what went wrong and did not end the run.
        most_failures: pieces of work that may fail one after another, with none between them that went well; None: any
            number.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        pool: Pool,
        sink: Sink,
        clock: Callable[[], float],
        *,
        observer: Observer | None = None,
        before_publishing: Callable[[], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
        most_failures: int | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._pool = pool
        self._sink = sink
        self._clock = clock
        self._observe: Observer = observer or (lambda time, what: None)
        self._before_publishing = before_publishing or (lambda: None)
        self._say = say
        self._told = 0.0
        self._refused = self._failed = self._failed_in_a_row = 0
        self._most_failures = most_failures
        self._clock_is_back = False
        self._next: PolicyState | None = None
        self._open: dict[Token, Assign] = {}
        self._kinds_open: Counter[WorkKind] = Counter()
        self._waiting: dict[Token, WorkResult | None] = {}
        self._workers: set[str] = set()
        self._held: list[tuple[int, WorkKind]] | None = None
        self._version = 0
        self._wake: float | None = None
        self._demanded: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._pieces_done: Counter[str] = Counter()
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
            self._take_events(0.0)
        self._tell(self._send_out(state))

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

    def in_hand(self, kind: WorkKind) -> int:
        """Pieces of this kind that have not ended: somebody does them, or their result waits."""
        return self._kinds_open[kind]

    def oldest_version(self, kind: WorkKind) -> int | None:
        """The oldest version that work in hand of this kind is done with; None where none is in hand."""
        return min((assign.version for assign in self._open.values() if assign.kind == kind), default=None)

    @property
    def wakes_at(self) -> float | None:
        """Run seconds when the scheduler is woken if nothing happens before; None where it waits for events alone."""
        return self._wake

    def done(self, kind: WorkKind) -> tuple[int, int]:
        """Pieces of this kind that were committed, and how much they are together in the kind's unit."""
        return self._pieces_done[kind], self._done[kind]

    def step(self, timeout: float) -> list[Committed]:
        """Take the events that wait, let the scheduler speak, carry out what it says.

        Args:
            timeout: seconds to wait for the first event, where none is there.

        Returns:
            What went to the sink since the last call.

        Raises:
            WorkFailed: a worker's code raised, once or too often, as pool and ``most_failures`` have it; or the sink
                refused a result.
            PoolExhausted: no worker is left.
        """
        self._take_events(timeout)
        return self._reported()

    def _reported(self) -> list[Committed]:
        report, self._report = self._report, []
        return report

    def _take_events(self, timeout: float) -> None:
        if self._wake is not None:
            timeout = min(timeout, max(0.0, self._wake - self._clock()))
        for event in self._pool.events(timeout):
            match event:
                case Arrived():
                    self._arrive(event)
                case Failed():
                    self._failed += 1
                    self._failed_in_a_row += 1
                    self._say(f"{event.worker} failed at {event.token}: {event.reason}")
                    if self._most_failures is not None and self._failed_in_a_row > self._most_failures:
                        many = (
                            f"; {self._failed_in_a_row} pieces of work failed with none between them that went well"
                            if self._failed_in_a_row > 1
                            else ""
                        )
                        told = f"{event.worker} failed at {event.token}: {event.reason}{many}"
                        raise WorkFailed(told) from self._pool.last_error
                    self._tell(event)
                case Left():
                    self._say(f"{event.worker} is gone: {event.reason}")
                    self._tell(event)
                case Joined():
                    self._tell(event)
        if self._wake is not None and (now := self._clock()) >= self._wake:
            self._wake = None
            self._tell(Tick(now))

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

    def close_work(self) -> list[Committed]:
        """Want no more work: what waits is committed or dropped as the scheduler says, what is in hand is dropped."""
        self._tell(Closing(self._clock()))
        return self._reported()

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
            refused=self._refused,
            failed=self._failed,
        )

    def state_dict(self) -> dict[str, Any]:
        """The ledger's sums, the work in hand, and the scheduler's state, as JSON values."""
        return {
            "scheduler": self._scheduler.state_dict(),
            "demanded": dict(self._demanded),
            "done": dict(self._done),
            "pieces_done": dict(self._pieces_done),
            "handed_out": self._handed_out,
            "committed": self._committed,
            "dropped": self._dropped + len(self._open),
            "open": [[str(a.token), a.kind, a.amount, a.version, a.rate_scale] for a in self._open.values()],
            "told": self._told,
            "workers": sorted(self._workers),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state in a new attempt, before the first step, with nothing left of the work that was in hand.

        Raises:
            ValueError: it is another scheduler's state.
        """
        self._load_sums(state)
        self._scheduler.load_state_dict(state["scheduler"])

    def _load_sums(self, state: Mapping[str, Any]) -> None:
        if self._workers or self._open:
            raise RuntimeError("a coordinator takes up a state before its first step: workers have joined this one")
        self._demanded = Counter(state["demanded"])
        self._done = Counter(state["done"])
        self._pieces_done = Counter(state.get("pieces_done", {}))
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
        if event.token in self._waiting:
            self._late += 1
            self._pool.acknowledge(event.token)
            self._say(f"{event.worker} answered {event.token} twice: the second answer is discarded")
            return
        if assign is None:
            # The scheduler may have given the worker up: it hears that it is there.
            self._late += 1
            self._pool.acknowledge(event.token)
            self._say(f"{event.worker} answered {event.token}, which has ended or never was: the answer is discarded")
            self._tell(event)
            return
        try:
            if result.kind != assign.kind:
                raise ResultRefused(f"it is the answer to a piece of kind {result.kind!r}")
            # Steps count in weights, speeds and budgets: a client may do fewer than it was asked for, and never more.
            if assign.kind == "train" and not 1 <= result.amount <= assign.amount:
                raise ResultRefused(f"it claims {result.amount:.6g} steps, and {assign.amount} were asked for")
            self._waiting[event.token] = self._sink.admit(result, event)
        except ResultRefused as error:
            self._refused += 1
            self._pool.acknowledge(event.token)
            self._say(f"{event.worker}'s {assign.kind} {event.token} is refused: {error}")
            self._tell(Failed(event.time, event.worker, event.token, f"refused: {error}"))
            return
        except ValueError as error:
            raise WorkFailed(f"{event.worker}'s {assign.kind} {event.token} is refused: {error}") from error
        self._tell(event)
        self._pool.acknowledge(event.token)

    def _tell(self, event: Event) -> None:
        """Tell the scheduler, carry out what it says, and send out the version that came of it, if one did."""
        events = deque([event])
        while events:
            told = self._timed(events.popleft())
            self._note(told)
            self._observe(told.time, told)
            for command in self._scheduler.handle(told):
                for carried_out in self._carry_out(command):
                    self._observe(told.time, carried_out)
            if self._next is not None:
                state, self._next = self._next, None
                self._before_publishing()
                events.append(self._send_out(state))

    def _note(self, event: Event) -> None:
        match event:
            case Joined():
                self._workers.add(event.worker)
            case Left():
                self._workers.discard(event.worker)
            case Published():
                self._version = event.version

    def _timed(self, event: Event) -> Event:
        """The event, not before the last one: a clock that was set back would confuse every estimate of speed."""
        if event.time < self._told:
            if not self._clock_is_back:
                back = self._told - event.time
                self._say(f"the clock went back by {back:.3g} s: run time stands still until it is past")
            self._clock_is_back = True
            return replace(event, time=self._told)
        self._told, self._clock_is_back = event.time, False
        return event

    def _send_out(self, state: PolicyState) -> Published:
        self._pool.publish(state)
        return Published(max(self._clock(), self._told), state.version)

    def _carry_out(self, command: Command) -> list[Command]:
        match command:
            case Assign():
                assert command.token.sequence > self._last_sequence, f"{command.token} is handed out a second time"
                self._last_sequence = command.token.sequence
                self._pool.submit(command)
                self._open[command.token] = command
                self._kinds_open[command.kind] += 1
                self._handed_out += 1
            case Commit():
                return self._commit(command)
            case Drop():
                self._end_unused(command.token)
            case WakeAt():
                self._wake = command.time if self._wake is None else min(self._wake, command.time)
        return [command]

    def _end(self, token: Token) -> bool:
        """Close a piece. False where it has ended already, or never was."""
        assign = self._open.pop(token, None)
        if assign is not None:
            self._kinds_open[assign.kind] -= 1
        return assign is not None

    def _end_unused(self, token: Token) -> None:
        if (result := self._waiting.pop(token, None)) is not None:
            self._sink.discard(result)
        self._dropped += self._end(token)

    def _commit(self, command: Commit) -> list[Command]:
        results = [(result, weight) for token, weight in command.entries if (result := self._waiting.get(token))]
        there = {result.token for result, _ in results}
        carried_out: list[Command] = self._drop([t for t, _ in command.entries if t not in there], "its result is gone")
        while True:
            try:
                self._next = self._sink.commit(results)
                break
            except CommitRefused as error:
                at_fault = [result.token for result, _ in results if not error.tokens or result.token in error.tokens]
                assert at_fault, "a commit is refused for what is not in it"
                self._refused += len(at_fault)
                self._say(f"{len(at_fault)} of {len(results)} results of a commit are dropped: {error}")
                carried_out += self._drop(at_fault, str(error))
                results = [(result, weight) for result, weight in results if result.token not in at_fault]
        for result, weight in results:
            self._note_committed(result, weight)
        applied = Commit(tuple((result.token, weight) for result, weight in results))
        return [*carried_out, applied] if results else carried_out

    def _drop(self, tokens: list[Token], reason: str) -> list[Command]:
        for token in tokens:
            self._end_unused(token)
        return [Drop(token, reason) for token in tokens]

    def _note_committed(self, result: WorkResult, weight: float) -> None:
        del self._waiting[result.token]
        self._end(result.token)
        self._committed += 1
        self._failed_in_a_row = 0
        self._done[result.kind] += result.amount
        self._pieces_done[result.kind] += 1
        self._staleness = self._version - result.version
        self._report.append(
            Committed(
                token=result.token,
                kind=result.kind,
                version=result.version,
                amount=result.amount,
                samples=result.samples,
                staleness=self._staleness,
                weight=weight,
                stats=result.stats,
            )
        )
