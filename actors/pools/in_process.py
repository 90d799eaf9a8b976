"""All workers in this process, one piece of work at a time: deterministic, and without Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from ...schedulers.events import Arrived, Assign, Failed, Joined, Left, Token
from ..work import PolicyState, WorkDoer, WorkResult, payload_nbytes
from .contract import Failures, PoolEvent, PoolExhausted, WorkFailed, raised


class InProcessPool:
    """Does the work in `events`: one piece a call, in the order of submission, whatever the timeout.

    Args:
        workers: what makes each, by name; at least one.
        clock: run seconds.
        failures: what becomes of a worker whose code raises.
        labels: that workers join with, by name.

    Raises:
        WorkFailed: a worker could not be made, where failures raise.
    """

    def __init__(
        self,
        workers: Mapping[str, Callable[[], WorkDoer]],
        *,
        clock: Callable[[], float],
        failures: Failures = "raise",
        labels: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        if not workers:
            raise ValueError("workers is empty: a pool needs at least 1")
        self._last_error: BaseException | None = None
        self._clock = clock
        self._failures = failures
        self._workers: dict[str, WorkDoer] = {}
        self._left_out: dict[str, str] = {}
        self._state: PolicyState | None = None
        self._queue: deque[tuple[Assign, PolicyState]] = deque()
        self._results: dict[Token, WorkResult] = {}
        self._labels = labels or {}
        self._announced = False
        for name, make in workers.items():
            try:
                self._workers[name] = make()
            except Exception as error:
                if failures != "tell":
                    raise WorkFailed(f"{name} failed to start: {raised(error)}") from error
                self._left_out[name] = f"failed to start: {raised(error)}"

    @property
    def restarts(self) -> int:
        """0: a worker of this process is lost with it."""
        return 0

    @property
    def last_error(self) -> BaseException | None:
        """See `Pool.last_error`."""
        return self._last_error

    def missing(self) -> str:
        """Which workers were left out; the others are there from the beginning."""
        if self._left_out:
            return "; ".join(f"{name} {reason}" for name, reason in self._left_out.items())
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
        """First that all workers joined; then do the next piece and tell of it.

        Raises `WorkFailed`, `PoolExhausted`.
        """
        if not self._announced:
            self._announced = True
            return self._announce()
        if not self._workers and self._left_out:
            raise PoolExhausted(f"no worker is left: {self.missing()}")
        if not self._queue:
            return []
        assign, state = self._queue.popleft()
        try:
            result = self._workers[assign.worker].run(assign, state)
        except Exception as error:
            self._last_error = error
            if self._failures != "raise":
                return [Failed(self._clock(), assign.worker, assign.token, raised(error))]
            raise WorkFailed(f"{assign.worker} failed at {assign.kind} {assign.token}: {raised(error)}") from error
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
        """Close the workers and forget everything."""
        for worker in self._workers.values():
            worker.close()
        self._workers = {}
        self._left_out = {}
        self._announced = True
        self._queue.clear()
        self._results.clear()
        self._state = None

    def _announce(self) -> list[PoolEvent]:
        now = self._clock()
        joined: list[PoolEvent] = [
            Joined(now, name, worker.samples, self._labels.get(name, {})) for name, worker in self._workers.items()
        ]
        return joined + [Left(now, name, reason) for name, reason in self._left_out.items()]
