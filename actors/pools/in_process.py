"""All workers in this process, one piece of work at a time: deterministic, and without Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...schedulers.events import Arrived, Assign, Joined, Token
from ..work import PolicyState, WorkResult, payload_nbytes
from ..worker import Worker
from .contract import PoolEvent, WorkFailed


class InProcessPool:
    """Does the work in `events`: one piece a call, in the order of submission, whatever the timeout.

    Args:
        worker_factory: makes worker number i; it is called ``env-i``.
        workers: how many, at least 1.
        clock: run seconds.

    Raises:
        WorkFailed: a worker could not be made.
    """

    def __init__(self, worker_factory: Callable[[int], Worker], workers: int, *, clock: Callable[[], float]) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}: it must be at least 1")
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._state: PolicyState | None = None
        self._queue: deque[tuple[Assign, PolicyState]] = deque()
        self._results: dict[Token, WorkResult] = {}
        for index in range(workers):
            name = f"env-{index}"
            try:
                self._workers[name] = worker_factory(index)
            except Exception as error:
                raise WorkFailed(f"{name} failed to start: {type(error).__name__}: {error}") from error
        self._unannounced = list(self._workers)

    @property
    def restarts(self) -> int:
        """0: a worker of this process is lost with it."""
        return 0

    def missing(self) -> str:
        """Nothing: workers of this process are there from the beginning."""
        return "the workers of this process are closed: begin a new run"

    def publish(self, state: PolicyState) -> None:
        """Make a version available. Work submitted before keeps its own."""
        self._state = state

    def submit(self, assign: Assign) -> None:
        """Queue a piece of work. Raises ValueError for an unknown worker or another version than the newest."""
        if assign.worker not in self._workers:
            raise ValueError(f"worker is {assign.worker!r}: the pool has {', '.join(self._workers) or 'none'}")
        if self._state is None or self._state.version != assign.version:
            newest = self._state.version if self._state else "none"
            raise ValueError(f"version is {assign.version}: the newest published version is {newest}")
        self._queue.append((assign, self._state))

    def events(self, timeout: float) -> list[PoolEvent]:
        """First that all workers joined; then do the next piece and tell of it. Raises `WorkFailed`."""
        if self._unannounced:
            joined: list[PoolEvent] = [Joined(self._clock(), name) for name in self._unannounced]
            self._unannounced = []
            return joined
        if not self._queue:
            return []
        assign, state = self._queue.popleft()
        try:
            result = self._workers[assign.worker].run(assign, state)
        except Exception as error:
            raise WorkFailed(
                f"{assign.worker} failed at {assign.kind} {assign.token}: {type(error).__name__}: {error}"
            ) from error
        self._results[assign.token] = result
        return [
            Arrived(
                time=self._clock(),
                worker=assign.worker,
                token=assign.token,
                version=result.version,
                amount=result.amount,
                samples=result.samples,
                nbytes=payload_nbytes(result),
                compute_seconds=result.compute_seconds,
                link_seconds=0.0,
            )
        ]

    def take(self, token: Token) -> WorkResult:
        """The result that `Arrived` told of. Raises KeyError for any other token."""
        return self._results.pop(token)

    def acknowledge(self, token: Token) -> None:
        """Nobody keeps a copy here once a result is taken."""

    def reset_workers(self) -> None:
        """Make every worker begin anew with its next work. Raises RuntimeError while work is in hand."""
        if self._queue or self._results:
            raise RuntimeError(f"{len(self._queue) + len(self._results)} pieces are in hand: workers cannot begin anew")
        for worker in self._workers.values():
            worker.reset()

    def close(self) -> None:
        """Close the workers' environments and forget everything."""
        for worker in self._workers.values():
            worker.close()
        self._workers = {}
        self._unannounced = []
        self._queue.clear()
        self._results.clear()
        self._state = None
