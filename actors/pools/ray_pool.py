"""Workers as Ray actors, one process each. The only module of `actors` that imports Ray."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from ...schedulers.events import Arrived, Assign, Joined, Left, Token
from ..work import PolicyState, WorkResult, payload_nbytes
from ..worker import Worker, WorkerSpec
from .contract import PoolEvent, PoolExhausted, WorkFailed


class EnvActor:
    """A `Worker` in a Ray actor.

    Its constructor does nothing that can fail: Ray would report a failure there as the actor's death, and here it is
    to come back as what it is, an exception of the worker's own code.
    """

    def __init__(self, index: int, spec: WorkerSpec) -> None:
        self._index = index
        self._spec = spec
        self._worker: Worker | None = None

    def begin(self) -> tuple[int, int]:
        """Make the worker, a new one if there is one already.

        Returns:
            This process's id, and how many processes of this actor were lost before it.
        """
        torch.set_num_threads(self._spec.torch_threads)
        self._worker = Worker(self._index, self._spec)
        return os.getpid(), _processes_lost()

    def run(self, assign: Assign, state: PolicyState) -> WorkResult:
        """Do one piece of work. A process that replaced a lost one unnoticed makes its worker first."""
        if self._worker is None:
            self.begin()
        assert self._worker is not None
        return self._worker.run(assign, state)

    def reset(self) -> None:
        """Begin anew with the next rollout."""
        if self._worker is not None:
            self._worker.reset()


def _processes_lost() -> int:
    """Processes that this actor had before its present one, those included that died before they answered anything.

    Only Ray counts these. Its State API, which tells the number, needs a dashboard; of the record that is read here the
    runtime context tells only whether the number is 0.
    """
    record: Mapping[str, Any] = ray._private.state.actors(ray.get_runtime_context().get_actor_id())
    return int(record["NumRestarts"])


@dataclass
class _Remote:
    """One worker's actor, as the pool sees it."""

    actor: Any
    pid: int | None = None
    last_arrival: float = 0.0


@dataclass(frozen=True)
class _Call:
    """What an object reference will answer; ``assign`` is None for `EnvActor.begin`."""

    worker: str
    submitted: float
    assign: Assign | None = None


class RayPool:
    """Workers ``env-0``, ``env-1``, ... as Ray actors of one CPU each.

    Consumes assignments and versions; produces results, in shared memory: the arrays of a payload are read-only. Waits,
    in `events` only, for actors to answer; unblocked by the first answer, by the loss of an actor, or by the timeout.
    A result stays in the pool from the arrival to `take`, so that at most as many wait as are in flight.

    Ray replaces a lost actor's process; the pool tells of the loss as soon as work comes back undone, and of the
    worker's return as soon as its environments and policy stand again. Work that was in the lost process is never
    retried by Ray and its results are never taken: the scheduler gives it out again under a new token.

    Ray starts worker processes at niceness 15. On a machine that also learns, start the local cluster with
    ``RAY_worker_niceness=0`` in the environment, or the players starve.

    Args:
        spec: what each worker is made from.
        workers: how many, at least 1. Those that find no CPU join when one is free.
        max_restarts: times that Ray replaces one lost worker.
        clock: run seconds.
        label_selector: labels that a node must have to get a worker, as in ``{"zone": "left"}``; see `ActorsConfig`.

    Raises:
        RuntimeError: Ray is not initialised.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        workers: int,
        *,
        max_restarts: int,
        clock: Callable[[], float],
        label_selector: Mapping[str, str] | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}: it must be at least 1")
        if not ray.is_initialized():
            raise RuntimeError("Ray is not initialised: call ray.init() first, or use the in-process pool")
        self._clock = clock
        self._selector = dict(label_selector or {})
        self._state: tuple[int, Any] | None = None
        self._calls: dict[Any, _Call] = {}
        self._results: dict[Token, WorkResult] = {}
        self._just_left: str | None = None
        self._failure: WorkFailed | PoolExhausted | None = None
        self._restarts: dict[str, int] = {}
        make = ray.remote(num_cpus=1, max_restarts=max_restarts, max_task_retries=0, label_selector=self._selector)(
            EnvActor
        )
        self._remotes = {f"env-{index}": _Remote(make.remote(index, spec)) for index in range(workers)}
        for worker in self._remotes:
            self._begin(worker)

    @property
    def restarts(self) -> int:
        """How many times processes of lost workers were replaced, as far as the new ones have answered."""
        return sum(self._restarts.values())

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the workers that are there now."""
        return {worker: remote.pid for worker, remote in self._remotes.items() if remote.pid is not None}

    def missing(self) -> str:
        """What workers that are not there wait for: a node with a free CPU, and with the labels."""
        known = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = Counter(_labels_and_cpus(node) for node in known if node["Alive"])
        there = "; ".join(f"{number} with {what}" for what, number in sorted(nodes.items()))
        if not self._selector:
            return f"each takes a CPU of its own, and the cluster has these nodes: {there}: free a CPU, or add a node"
        return (
            f"actors.label_selector is {_listed(self._selector)}, and the cluster has these nodes: {there}: free a CPU "
            "of a node with these labels, add one (ray start --labels), or change actors.label_selector"
        )

    def publish(self, state: PolicyState) -> None:
        """Put a version into the object store, once for all workers. Work submitted before keeps its own."""
        self._state = (state.version, ray.put(state))

    def submit(self, assign: Assign) -> None:
        """Hand out work. Raises ValueError for an unknown worker or another version than the newest."""
        remote = self._remotes.get(assign.worker)
        if remote is None or (remote.pid is None and assign.worker != self._just_left):
            raise ValueError(f"worker is {assign.worker!r}: the pool has {', '.join(self.pids) or 'none'}")
        if self._state is None or self._state[0] != assign.version:
            newest = self._state[0] if self._state else "none"
            raise ValueError(f"version is {assign.version}: the newest published version is {newest}")
        # The caller may not have read yet that this worker left: it will, and then gives the work up as lost.
        if assign.worker == self._just_left:
            return
        ref = remote.actor.run.remote(assign, self._state[1])
        self._calls[ref] = _Call(assign.worker, self._clock(), assign)

    def events(self, timeout: float) -> list[PoolEvent]:
        """What happened, in order; at once when nothing is in hand.

        A `Left` is always the last event of a call. Raises `WorkFailed`, `PoolExhausted`.
        """
        self._just_left = None
        if self._failure is not None:
            raise self._failure
        events: list[PoolEvent] = []
        for ref in self._answered(timeout):
            if (event := self._receive(ref)) is not None:
                events.append(event)
            if self._just_left is not None or self._failure is not None:
                break
        if self._failure is not None and not events:
            raise self._failure
        return events

    def take(self, token: Token) -> WorkResult:
        """The result that `Arrived` told of. Raises KeyError for any other token."""
        return self._results.pop(token)

    def acknowledge(self, token: Token) -> None:
        """Nobody keeps a copy here once a result is taken."""

    def reset_workers(self) -> None:
        """Make every worker begin anew with its next work. Raises RuntimeError while work is in hand."""
        in_hand = len(self._results) + sum(call.assign is not None for call in self._calls.values())
        if in_hand:
            raise RuntimeError(f"{in_hand} pieces are in hand: workers cannot begin anew")
        # An actor takes its calls in order, and one that is lost meanwhile begins anew in any case.
        for remote in self._remotes.values():
            remote.actor.reset.remote()

    def close(self) -> None:
        """End the actors and let go of everything in the object store."""
        if ray.is_initialized():
            for remote in self._remotes.values():
                ray.kill(remote.actor)
        self._remotes = {}
        self._calls.clear()
        self._results.clear()
        self._state = None

    def _begin(self, worker: str) -> None:
        # Ray holds this call back, and repeats it, until a replaced process is there or none will come.
        ref = self._remotes[worker].actor.begin.options(max_task_retries=-1).remote()
        self._calls[ref] = _Call(worker, self._clock())

    def _answered(self, timeout: float) -> list[Any]:
        refs = list(self._calls)
        if not refs:
            return []
        first, _ = ray.wait(refs, num_returns=1, timeout=timeout)
        if not first:
            return []
        answered, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return list(answered)

    def _receive(self, ref: Any) -> PoolEvent | None:
        call = self._calls.pop(ref)
        remote = self._remotes[call.worker]
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            what = f"at {call.assign.kind} {call.assign.token}" if call.assign else "to start"
            cause = error.cause
            self._failure = WorkFailed(f"{call.worker} failed {what}: {type(cause).__name__}: {cause}")
            self._failure.__cause__ = error
            return None
        except RayError as error:
            return self._lose(call, f"{type(error).__name__}: {error}")
        if call.assign is None:
            remote.pid, self._restarts[call.worker] = answer
            return Joined(self._clock(), call.worker)
        return self._arrive(call.assign, call, answer)

    def _arrive(self, assign: Assign, call: _Call, result: WorkResult) -> Arrived:
        now = self._clock()
        remote = self._remotes[call.worker]
        begun = max(call.submitted, remote.last_arrival)
        remote.last_arrival = now
        self._results[assign.token] = result
        return Arrived(
            time=now,
            worker=call.worker,
            token=assign.token,
            version=result.version,
            amount=result.amount,
            samples=result.samples,
            nbytes=payload_nbytes(result),
            compute_seconds=result.compute_seconds,
            link_seconds=max(0.0, now - begun - result.compute_seconds),
        )

    def _lose(self, call: _Call, reason: str) -> Left | None:
        remote = self._remotes[call.worker]
        self._calls = {ref: other for ref, other in self._calls.items() if other.worker != call.worker}
        if call.assign is not None:
            remote.pid = None
            self._just_left = call.worker
            self._begin(call.worker)
            return Left(self._clock(), call.worker, reason)
        del self._remotes[call.worker]
        if not self._remotes:
            self._failure = PoolExhausted(f"no worker is left; {call.worker} was the last: {reason}")
        return None


def _labels_and_cpus(node: Mapping[str, Any]) -> str:
    """A node of `ray.nodes`, without the labels that Ray gives every node anew."""
    labels = {name: value for name, value in node["Labels"].items() if name != "ray.io/node-id"}
    return f"{_listed(labels) if labels else 'no labels'} and {node['Resources'].get('CPU', 0):g} CPUs"


def _listed(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
