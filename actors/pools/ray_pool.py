"""Workers in Ray actors. The only module of `actors` that imports Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError, RayTaskError

from ...schedulers.events import Arrived, Assign, Failed, Joined, Left, Token
from ..work import PolicyState, WorkResult, payload_nbytes
from .contract import Failures, PoolEvent, PoolExhausted, WorkFailed, raised
from .hosts import HostSpec, what_hosts_wait_for
from .worker_host import WorkerHost


def _processes_lost() -> int:
    """Processes that this actor had before its present one, those included that died before they answered anything.

    Only Ray counts these. Its State API, which tells the number, needs a dashboard; of the record that is read here the
    runtime context tells only whether the number is 0.
    """
    record: Mapping[str, Any] = ray._private.state.actors(ray.get_runtime_context().get_actor_id())
    return int(record["NumRestarts"])


@dataclass(eq=False)
class _Host:
    """One actor, as the pool sees it, with those of its workers that are not gone for good."""

    spec: HostSpec
    actor: Any
    workers: set[str] = field(default_factory=set)
    restarts: int = 0


@dataclass
class _Remote:
    """One worker, as the pool sees it; ``thread`` is Ray's option that calls it in a thread of its own."""

    host: _Host
    thread: dict[str, str]
    pid: int | None = None
    ever_joined: bool = False
    last_arrival: float = 0.0


@dataclass(frozen=True)
class _Call:
    """What an object reference will answer; ``assign`` is None for `WorkerHost.begin`."""

    worker: str
    submitted: float
    assign: Assign | None = None


class RayPool:
    """Workers in Ray actors, one or more to a process.

    Consumes assignments and versions; produces results, in shared memory: the arrays of a payload are read-only. Waits,
    in `events` only, for actors to answer; unblocked by the first answer, by the loss of an actor, or by the timeout.
    A result stays in the pool from the arrival to `take`, so that at most as many wait as are in flight; the object
    store keeps it until `acknowledge`, and as long as somebody has its arrays.

    Ray replaces a lost actor's process; the pool tells of the loss of its workers as soon as work comes back undone,
    and of each worker's return as soon as it stands again. Work that was in the lost process is never retried by Ray
    and its results are never taken: the scheduler gives it out again under a new token. A worker that hangs holds up
    nobody: others of its process have threads of their own.

    Ray starts worker processes at niceness 15. On a machine that also learns, start the local cluster with
    ``RAY_worker_niceness=0`` in the environment, or the players starve.

    Args:
        hosts: the processes; at least one. Those that find no CPU or no node with their labels join later.
        clock: run seconds.
        failures: what becomes of a worker whose code raises.
        hangs_after: seconds on one piece of work after which a worker's process is ended, and replaced as a lost one
            is; None: never.

    Raises:
        RuntimeError: Ray is not initialised.
        ValueError: two workers of one name.
    """

    def __init__(
        self,
        hosts: Iterable[HostSpec],
        *,
        clock: Callable[[], float],
        failures: Failures = "raise",
        hangs_after: float | None = None,
    ) -> None:
        if not ray.is_initialized():
            raise RuntimeError("Ray is not initialised: call ray.init() first, or use the in-process pool")
        self._clock = clock
        self._failures = failures
        self._hangs_after = hangs_after
        self._last_error: BaseException | None = None
        self._hung: set[Any] = set()
        self._state: tuple[int, Any] | None = None
        self._hosts: list[_Host] = []
        self._remotes: dict[str, _Remote] = {}
        self._calls: dict[Any, _Call] = {}
        self._results: dict[Token, WorkResult] = {}
        self._unacknowledged: dict[Token, Any] = {}
        self._left_out: dict[str, str] = {}
        self._untold: list[PoolEvent] = []
        self._unread: set[str] = set()
        self._failure: WorkFailed | None = None
        self._last_gone: str | None = None
        self._restarts_of_gone = 0
        for host in hosts:
            self.add(host)
        if not self._remotes:
            raise ValueError("hosts is empty: a pool needs at least 1")

    @property
    def restarts(self) -> int:
        """How many times lost processes were replaced, as far as the new ones have answered."""
        return self._restarts_of_gone + sum(host.restarts for host in self._hosts)

    @property
    def last_error(self) -> BaseException | None:
        """See `Pool.last_error`."""
        return self._last_error

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the workers that are there now."""
        return {worker: remote.pid for worker, remote in self._remotes.items() if remote.pid is not None}

    def missing(self) -> str:
        """What workers that are not there wait for: a node with a free CPU, and with the labels."""
        waiting = [h.spec for h in self._hosts if any(self._remotes[worker].pid is None for worker in h.workers)]
        told = [f"{worker} {reason}" for worker, reason in self._left_out.items()]
        if waiting or not told:
            nodes = ray.nodes()  # type: ignore[no-untyped-call]
            told.insert(0, what_hosts_wait_for(waiting or [host.spec for host in self._hosts], nodes))
        return "; ".join(told)

    def add(self, spec: HostSpec) -> None:
        """Start another process; its workers join when they stand. Raises ValueError for a name that is taken."""
        if taken := spec.workers.keys() & self._remotes.keys():
            raise ValueError(f"workers has {', '.join(sorted(taken))}: the pool has one of that name already")
        # A worker alone has its process's main thread, which some environments insist on.
        threads = {worker: f"worker-{i}" for i, worker in enumerate(spec.workers)} if len(spec.workers) > 1 else {}
        options: dict[str, Any] = {
            "num_cpus": spec.num_cpus,
            "max_restarts": spec.max_restarts,
            "max_task_retries": 0,
            "label_selector": dict(spec.label_selector),
            "concurrency_groups": dict.fromkeys(threads.values(), 1) or None,
        }
        makers = {worker: cloudpickle.dumps(make) for worker, make in spec.workers.items()}  # type: ignore[no-untyped-call]
        actor = ray.remote(**options)(WorkerHost).remote(makers, spec.torch_threads, _processes_lost)
        host = _Host(spec, actor, set(spec.workers))
        self._hosts.append(host)
        for worker in spec.workers:
            self._left_out.pop(worker, None)
            thread = {"concurrency_group": threads[worker]} if threads else {}
            self._remotes[worker] = _Remote(host, thread)
            self._begin(worker)

    def remove(self, worker: str) -> None:
        """Let a worker go for good; `events` tells that it left. Raises ValueError for an unknown worker."""
        remote = self._remotes.get(worker)
        if remote is None:
            raise ValueError(f"worker is {worker!r}: the pool has {', '.join(self._remotes) or 'none'}")
        if len(remote.host.workers) > 1:
            remote.host.actor.end.options(**remote.thread).remote(worker)
        self._untold.append(Left(self._clock(), worker, "removed"))
        self._unread.add(worker)
        self._forget(worker, "removed")

    def publish(self, state: PolicyState) -> None:
        """Put a version into the object store, once for all workers. Work submitted before keeps its own."""
        self._state = (state.version, ray.put(state))

    def submit(self, assign: Assign) -> None:
        """Hand out work. Raises ValueError for an unknown worker or another version than the newest."""
        remote = self._remotes.get(assign.worker)
        unread = assign.worker in self._unread
        if not unread and (remote is None or remote.pid is None):
            raise ValueError(f"worker is {assign.worker!r}: the pool has {', '.join(self.pids) or 'none'}")
        if self._state is None or self._state[0] != assign.version:
            newest = self._state[0] if self._state else "none"
            raise ValueError(f"version is {assign.version}: the newest published version is {newest}")
        # The caller may not have read yet that this worker left: it will, and then gives the work up as lost.
        if unread or remote is None:
            return
        ref = remote.host.actor.run.options(**remote.thread).remote(assign.worker, assign, self._state[1])
        self._calls[ref] = _Call(assign.worker, self._clock(), assign)

    def events(self, timeout: float) -> list[PoolEvent]:
        """What happened, in order; at once when nothing is in hand.

        Those of workers that left are always the last events of a call. Raises `WorkFailed`, `PoolExhausted`.
        """
        self._unread = {event.worker for event in self._untold}
        if self._untold:
            events, self._untold = self._untold, []
            return events
        events = self._received(self._answered(timeout)) if self._failure is None else []
        if not events:
            if self._failure is not None:
                raise self._failure
            if not self._remotes and self._last_gone is not None:
                raise PoolExhausted(f"no worker is left; {self._last_gone}")
        return events

    def take(self, token: Token) -> WorkResult:
        """The result that `Arrived` told of. Raises KeyError for any other token."""
        return self._results.pop(token)

    def acknowledge(self, token: Token) -> None:
        """Let the object store free the result, as soon as nobody has its arrays."""
        self._unacknowledged.pop(token, None)

    def reset_workers(self) -> None:
        """Make every worker begin anew with its next work. Raises RuntimeError while work is in hand."""
        in_hand = len(self._results) + sum(call.assign is not None for call in self._calls.values())
        if in_hand:
            raise RuntimeError(f"{in_hand} pieces are in hand: workers cannot begin anew")
        # A worker takes its calls in order, and one that is lost meanwhile begins anew in any case.
        for worker, remote in self._remotes.items():
            remote.host.actor.reset.options(**remote.thread).remote(worker)

    def close(self) -> None:
        """End the actors and let go of everything in the object store."""
        if ray.is_initialized():
            for host in self._hosts:
                ray.kill(host.actor)
        self._restarts_of_gone = self.restarts
        self._hosts = []
        self._remotes = {}
        self._calls.clear()
        self._hung.clear()
        self._results.clear()
        self._unacknowledged.clear()
        self._untold = []
        self._unread = set()
        self._last_gone = None
        self._state = None

    def _begin(self, worker: str) -> None:
        # Ray holds this call back, and repeats it, until a replaced process is there or none will come.
        remote = self._remotes[worker]
        ref = remote.host.actor.begin.options(max_task_retries=-1, **remote.thread).remote(worker)
        self._calls[ref] = _Call(worker, self._clock())

    def _end_hung(self) -> None:
        if self._hangs_after is None:
            return
        for ref, call in self._calls.items():
            if call.assign is None or ref in self._hung:
                continue
            remote = self._remotes[call.worker]
            if self._clock() - max(call.submitted, remote.last_arrival) > self._hangs_after:
                self._hung.add(ref)
                ray.kill(remote.host.actor, no_restart=False)

    def _answered(self, timeout: float) -> list[Any]:
        self._end_hung()
        refs = list(self._calls)
        if not refs:
            return []
        first, _ = ray.wait(refs, num_returns=1, timeout=timeout)
        if not first:
            return []
        answered, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return list(answered)

    def _received(self, refs: list[Any]) -> list[PoolEvent]:
        events: list[PoolEvent] = []
        lost: dict[_Host, tuple[_Call, str]] = {}
        for ref in refs:
            call = self._calls.pop(ref)
            try:
                answer = ray.get(ref)
            except RayTaskError as error:
                if self._failures == "raise" or (self._failures == "retry" and call.assign is None):
                    what = f"at {call.assign.kind} {call.assign.token}" if call.assign else "to start"
                    self._failure = WorkFailed(f"{call.worker} failed {what}: {raised(error.cause)}")
                    self._failure.__cause__ = error
                    break
                self._last_error = error
                events += self._fail(call, error.cause)
            except RayError as error:
                host = self._remotes[call.worker].host
                # That a process never begins says more than that work came back undone.
                if host not in lost or call.assign is None:
                    lost[host] = (call, self._why_lost(ref, error))
            else:
                begun = call.assign is None
                events.append(self._join(call.worker, *answer) if begun else self._arrive(ref, call, answer))
        self._hung &= self._calls.keys()
        for host, (call, reason) in lost.items():
            events += self._lose(host, reason, for_good=call.assign is None)
        self._unread |= {event.worker for event in events if isinstance(event, Left)}
        return events

    def _why_lost(self, ref: Any, error: RayError) -> str:
        if ref not in self._hung:
            return raised(error)
        return f"it hung: no answer for {self._hangs_after:g} seconds, so its process was ended"

    def _join(self, worker: str, pid: int, processes_lost: int, samples: int) -> Joined:
        remote = self._remotes[worker]
        remote.pid, remote.ever_joined = pid, True
        remote.host.restarts = processes_lost
        return Joined(self._clock(), worker, samples, remote.host.spec.labels)

    def _arrive(self, ref: Any, call: _Call, result: WorkResult) -> Arrived:
        now = self._clock()
        remote = self._remotes[call.worker]
        begun = max(call.submitted, remote.last_arrival)
        remote.last_arrival = now
        self._results[result.token] = result
        self._unacknowledged[result.token] = ref
        return Arrived(
            time=now,
            worker=call.worker,
            token=result.token,
            version=result.version,
            amount=result.amount,
            samples=result.samples,
            nbytes=payload_nbytes(result),
            compute_seconds=result.compute_seconds,
            link_seconds=max(0.0, now - begun - result.compute_seconds),
        )

    def _fail(self, call: _Call, cause: BaseException) -> list[PoolEvent]:
        if call.assign is not None:
            return [Failed(self._clock(), call.worker, call.assign.token, raised(cause))]
        return self._leave_for_good(call.worker, f"failed to start: {raised(cause)}")

    def _lose(self, host: _Host, reason: str, *, for_good: bool) -> list[PoolEvent]:
        workers = [worker for worker in self._remotes if worker in host.workers]
        if for_good:
            return [event for worker in workers for event in self._leave_for_good(worker, reason)]
        begins = {call.worker for call in self._calls.values() if call.assign is None}
        self._calls = {r: call for r, call in self._calls.items() if call.worker not in host.workers or not call.assign}
        events: list[PoolEvent] = []
        for worker in workers:
            if self._remotes[worker].pid is not None:
                self._remotes[worker].pid = None
                events.append(Left(self._clock(), worker, reason))
            if worker not in begins:
                self._begin(worker)
        return events

    def _leave_for_good(self, worker: str, reason: str) -> list[PoolEvent]:
        remote = self._remotes[worker]
        told = remote.ever_joined and remote.pid is None
        self._left_out[worker] = reason
        self._forget(worker, reason)
        return [] if told else [Left(self._clock(), worker, reason)]

    def _forget(self, worker: str, reason: str) -> None:
        host = self._remotes.pop(worker).host
        self._calls = {ref: call for ref, call in self._calls.items() if call.worker != worker}
        self._last_gone = f"{worker} was the last: {reason}"
        host.workers.discard(worker)
        if not host.workers:
            ray.kill(host.actor)
            self._hosts.remove(host)
            self._restarts_of_gone += host.restarts
