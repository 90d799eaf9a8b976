"""The virtual clock: work is really done, and only how long it takes is simulated."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ...schedulers.events import Arrived, Assign, Failed, Joined, Left, Token
from ..work import PolicyState, WorkDoer, WorkResult, payload_nbytes
from .contract import Failures, PoolEvent, PoolExhausted, WorkFailed, raised


@dataclass(frozen=True, slots=True)
class Duration:
    """How long one piece of training takes, in virtual seconds, each at least 0.

    A part that is infinite is a client that hangs: its work never comes back.

    Attributes:
        down: the model's way to the client.
        wait: in the client's batch queue, before training begins.
        compute: of training.
        up: the update's way back.
        lost: whether the client drops out at the end of these seconds, instead of answering.
        back_after: seconds from there until it joins again; infinite where it never does.
    """

    down: float
    wait: float
    compute: float
    up: float
    lost: bool = False
    back_after: float = 0.0

    def __post_init__(self) -> None:
        for name in ("down", "wait", "compute", "up", "back_after"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} is {value}: a duration is at least 0 seconds")

    @property
    def link(self) -> float:
        """All of it that is not training: what a scheduler is told as the link's seconds."""
        return self.down + self.wait + self.up

    @property
    def total(self) -> float:
        """From the submission to the answer."""
        return self.down + self.wait + self.compute + self.up

    @property
    def hangs(self) -> bool:
        """Whether no answer ever comes."""
        return math.isinf(self.total)


class DurationModel(Protocol):
    """How fast clients and their links are.

    A pure function of its arguments and of what it was made with: the order of calls must not matter, so that a run is
    the same however its events fall.
    """

    def train(self, index: int, sequence: int, amount: int, nbytes_down: int, nbytes_up: int) -> Duration:
        """The duration of one piece of training.

        Args:
            index: which worker of the pool, from 0.
            sequence: of the work's token: which piece of the run.
            amount: local steps.
            nbytes_down: bytes of the model.
            nbytes_up: bytes of the update.
        """
        ...


@dataclass(frozen=True)
class VirtualWorker:
    """One worker of the simulation.

    Attributes:
        make: makes it.
        joins_at: when, in virtual seconds; before the pool's beginning means at its beginning.
        leaves_at: when it leaves for good, in virtual seconds, with its work in hand; infinite where it never does.
        labels: that it joins with.
    """

    make: Callable[[], WorkDoer]
    joins_at: float = 0.0
    leaves_at: float = math.inf
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Leave:
    """A worker is to leave for good."""

    worker: str


@dataclass(frozen=True, slots=True)
class _Piece:
    """Work in hand: what was submitted with which weights, and how long it takes."""

    assign: Assign
    state: PolicyState
    duration: Duration


class VirtualPool:
    """Workers of this process whose time is simulated: hours of a federation in the seconds that its training takes.

    The clock stands still but in `events`, which moves it to the next thing that happens, or by the timeout if nothing
    does until then. Work is done when its result arrives, so that results in hand take no memory; work that is lost on
    the way is not done at all. Nothing depends on the machine's clock: what a result says of its seconds is what was
    simulated. A worker does its pieces in order, one at a time. Things that happen at one instant come in the order in
    which they were caused.

    Args:
        workers: by name, at least one; their indices count in this order.
        durations: how long training, or a rollout, takes.
        failures: what becomes of a worker whose code raises.
        resident: how many workers are kept in memory, those used last; None: all. Another one is made anew for its
            next work, without what it kept between assignments.
        evaluation_seconds: for each unit of an evaluation's amount.
        begins_at: the clock's beginning, for a run that was taken up.
    """

    def __init__(
        self,
        workers: Mapping[str, VirtualWorker],
        durations: DurationModel,
        *,
        failures: Failures = "raise",
        resident: int | None = None,
        evaluation_seconds: float = 0.0,
        begins_at: float = 0.0,
    ) -> None:
        if not workers:
            raise ValueError("workers is empty: a pool needs at least 1")
        if resident is not None and resident < 1:
            raise ValueError(f"resident is {resident}: it must be at least 1")
        self._workers = dict(workers)
        self._index = {name: index for index, name in enumerate(workers)}
        self._durations = durations
        self._last_error: BaseException | None = None
        self._failures = failures
        self._most_resident = resident or len(workers)
        self._evaluation_seconds = evaluation_seconds
        self._now = begins_at
        self._state: PolicyState | None = None
        self._state_nbytes = 0
        self._resident: OrderedDict[str, WorkDoer] = OrderedDict()
        self._present: set[str] = set()
        self._free_at: dict[str, float] = {}
        self._in_hand: dict[str, dict[Token, _Piece]] = {name: {} for name in workers}
        self._results: dict[Token, WorkResult] = {}
        self._agenda: list[tuple[float, int, str | Token | _Leave]] = []
        self._caused = 0
        self._just_left: set[str] = set()
        self._left_out: dict[str, str] = {}
        self._came_back = 0
        for name, worker in workers.items():
            if worker.leaves_at > max(worker.joins_at, begins_at):
                self._plan(max(worker.joins_at, begins_at), name)
                self._plan(worker.leaves_at, _Leave(name))

    def clock(self) -> float:
        """Virtual seconds."""
        return self._now

    @property
    def restarts(self) -> int:
        """How many times a worker came back that had dropped out."""
        return self._came_back

    @property
    def last_error(self) -> BaseException | None:
        """See `Pool.last_error`."""
        return self._last_error

    def missing(self) -> str:
        """Which workers are still to join, or were left out, and why."""
        told = [f"{name} {reason}" for name, reason in self._left_out.items()]
        if away := sum(isinstance(what, str) for _, _, what in self._agenda):
            told.append(f"{away} join after {self._now:g} virtual seconds")
        return "; ".join(told) or "every worker is there, or gone for good"

    def publish(self, state: PolicyState) -> None:
        """Make a version available. Work submitted before keeps its own."""
        self._state = state
        self._state_nbytes = sum(array.nbytes for array in state.tensors.values())

    def submit(self, assign: Assign) -> None:
        """Hand out work. Raises ValueError for an unknown worker or another version than the newest."""
        if assign.worker not in self._present and assign.worker not in self._just_left:
            there = ", ".join(name for name in self._workers if name in self._present)
            raise ValueError(f"worker is {assign.worker!r}: the pool has {there or 'none'}")
        if self._state is None or self._state.version != assign.version:
            newest = self._state.version if self._state else "none"
            raise ValueError(f"version is {assign.version}: the newest published version is {newest}")
        # The caller may not have read yet that this worker left: it will, and then gives the work up as lost.
        if assign.worker in self._just_left:
            return
        duration = self._duration(assign)
        end = max(self._now, self._free_at[assign.worker]) + duration.total
        self._free_at[assign.worker] = end
        self._in_hand[assign.worker][assign.token] = _Piece(assign, self._state, duration)
        self._plan(end, assign.token)

    def events(self, timeout: float) -> list[PoolEvent]:
        """Move the clock to the next thing that happens, by ``timeout`` virtual seconds at most, and tell of it.

        What happens exactly at the end of the timeout counts. All that happens at one instant comes in one call, so
        that it is before a timer of that instant; but for a worker that left, which comes back in a later call.

        Raises:
            ValueError: the timeout is negative or infinite: the clock could not be moved by it.
            WorkFailed: a worker's code raised, where failures raise.
            PoolExhausted: nobody is there, or will be.
        """
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout is {timeout}: it must be at least 0 and finite")
        self._just_left = set()
        if not self._workers:
            return []
        end = self._now + timeout
        events: list[PoolEvent] = []
        come_back: list[str] = []
        while self._agenda and self._agenda[0][0] <= end:
            time, _, what = heapq.heappop(self._agenda)
            if what in self._just_left:
                come_back.append(what)
            elif isinstance(what, str):
                self._now = end = time
                events.append(self._join(what))
            elif isinstance(what, _Leave):
                if what.worker in self._present:
                    self._now = end = time
                    events.append(self._leave(what.worker, "left for good"))
            elif what in self._in_hand[what.worker]:
                self._now = end = time
                events.append(self._finish(what))
        self._now = end
        for worker in come_back:
            self._plan(end, worker)
        if not events and not self._agenda and not self._present:
            raise PoolExhausted(f"no worker is left, and none will join: {self.missing()}")
        return events

    def take(self, token: Token) -> WorkResult:
        """The result that `Arrived` told of. Raises KeyError for any other token."""
        return self._results.pop(token)

    def acknowledge(self, token: Token) -> None:
        """Nobody keeps a copy here once a result is taken."""

    def reset_workers(self) -> None:
        """Make every worker begin anew with its next work. Raises RuntimeError while work is in hand."""
        if in_hand := sum(map(len, self._in_hand.values())) + len(self._results):
            raise RuntimeError(f"{in_hand} pieces are in hand: workers cannot begin anew")
        for worker in self._resident.values():
            worker.reset()

    def close(self) -> None:
        """Close the workers and forget everything. The clock stands still from then on."""
        for worker in self._resident.values():
            worker.close()
        self._resident.clear()
        self._workers = {}
        self._present.clear()
        self._in_hand.clear()
        self._results.clear()
        self._agenda.clear()
        self._just_left = set()
        self._state = None

    def _plan(self, time: float, what: str | Token | _Leave) -> None:
        """Have a worker join, its work end, or the worker leave; never, if the time is infinite."""
        if time < math.inf:
            heapq.heappush(self._agenda, (time, self._caused, what))
            self._caused += 1

    def _duration(self, assign: Assign) -> Duration:
        if assign.kind == "evaluate":
            return Duration(0.0, 0.0, assign.amount * self._evaluation_seconds, 0.0)
        nbytes = self._state_nbytes
        return self._durations.train(self._index[assign.worker], assign.token.sequence, assign.amount, nbytes, nbytes)

    def _join(self, name: str) -> PoolEvent:
        try:
            samples = self._worker(name).samples
        except Exception as error:
            if self._failures != "tell":
                raise WorkFailed(f"{name} failed to start: {raised(error)}") from error
            self._left_out[name] = f"failed to start: {raised(error)}"
            return Left(self._now, name, self._left_out[name])
        self._came_back += name in self._free_at
        self._free_at[name] = self._now
        self._present.add(name)
        return Joined(self._now, name, samples, self._workers[name].labels)

    def _finish(self, token: Token) -> PoolEvent:
        piece = self._in_hand[token.worker].pop(token)
        if piece.duration.lost:
            return self._lose(piece)
        assign, seconds = piece.assign, piece.duration.compute
        try:
            result = self._worker(assign.worker).run(assign, piece.state)
        except Exception as error:
            self._last_error = error
            if self._failures != "raise":
                return Failed(self._now, assign.worker, token, raised(error))
            raise WorkFailed(f"{assign.worker} failed at {assign.kind} {token}: {raised(error)}") from error
        self._results[token] = replace(result, compute_seconds=seconds)
        return Arrived(
            time=self._now,
            worker=assign.worker,
            token=token,
            version=result.version,
            amount=result.amount,
            samples=result.samples,
            nbytes=payload_nbytes(result),
            compute_seconds=seconds,
            link_seconds=piece.duration.link,
        )

    def _lose(self, piece: _Piece) -> Left:
        name = piece.assign.worker
        back = self._now + piece.duration.back_after
        if back < self._workers[name].leaves_at:
            self._plan(back, name)
        return self._leave(name, "dropped out")

    def _leave(self, name: str, reason: str) -> Left:
        self._in_hand[name].clear()
        self._present.discard(name)
        self._just_left.add(name)
        if name in self._resident:
            self._resident.pop(name).close()
        return Left(self._now, name, reason)

    def _worker(self, name: str) -> WorkDoer:
        """A worker that can do work, made if it is not in memory; then the one used longest ago may have to go."""
        if name not in self._resident:
            self._resident[name] = self._workers[name].make()
            if len(self._resident) > self._most_resident:
                _, worker = self._resident.popitem(last=False)
                worker.close()
        self._resident.move_to_end(name)
        return self._resident[name]
