from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isogon.actors.columns import check_columns
from isogon.actors.pools import InProcessPool, PoolEvent, WorkFailed
from isogon.actors.pools.hosts import hosts_of_one
from isogon.actors.work import PolicyState, WorkResult
from isogon.actors.worker import worker_factories
from isogon.schedulers import EqualSplit
from isogon.schedulers.events import (
    Arrived,
    Assign,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Failed,
    Joined,
    Left,
    Tick,
    Token,
    WakeAt,
)
from isogon.system.coordinate import Coordinator

from ..actors.toys import Corridor, corridor_spec, weights

SPEC = corridor_spec()


class ListSink:
    """Keeps what it is given, and refuses some of it."""

    def __init__(self, refuse: str = "") -> None:
        self.results: list[WorkResult] = []
        self.weights: list[float] = []
        self.refuse = refuse

    def admit(self, result: WorkResult, arrived: Arrived) -> WorkResult:
        if self.refuse:
            raise ValueError(self.refuse)
        if result.kind == "rollout":
            check_columns(result.payload, Corridor(3).spec)
        return result

    def discard(self, result: WorkResult) -> None:
        pass

    def commit(self, entries: list[tuple[WorkResult, float]]) -> None:
        self.results += [result for result, _ in entries]
        self.weights += [weight for _, weight in entries]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class ScriptedPool:
    """Answers with the events that the test put in; every piece's result is there from the beginning."""

    def __init__(self) -> None:
        self.script: deque[list[PoolEvent]] = deque()
        self.submitted: list[Assign] = []
        self.timeouts: list[float] = []
        self.resets = 0
        self.restarts = 0
        self.last_error: BaseException | None = None

    def missing(self) -> str:
        return "nothing"

    def publish(self, state: PolicyState) -> None:
        pass

    def submit(self, assign: Assign) -> None:
        self.submitted.append(assign)

    def events(self, timeout: float) -> list[PoolEvent]:
        self.timeouts.append(timeout)
        return self.script.popleft() if self.script else []

    def take(self, token: Token) -> WorkResult:
        assign = next(assign for assign in self.submitted if assign.token == token)
        empty = {"return": np.zeros(0, np.float32)}
        return WorkResult(token, assign.kind, assign.version, assign.amount, 0, empty, 1.0)

    def acknowledge(self, token: Token) -> None:
        pass

    def reset_workers(self) -> None:
        self.resets += 1

    def close(self) -> None:
        pass

    def arrive(self, assign: Assign) -> None:
        self.script.append([Arrived(0.0, assign.worker, assign.token, assign.version, assign.amount, 0, 0, 1.0, 0.0)])


class ScriptedScheduler:
    """Answers each event with the next commands of a script."""

    def __init__(self, *script: list[Command]) -> None:
        self.script = list(script)
        self.heard: list[Event] = []

    def handle(self, event: Event) -> list[Command]:
        self.heard.append(event)
        return self.script.pop(0) if self.script else []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def check_valid(self) -> None:
        pass


class World:
    """A run around the in-process pool."""

    def __init__(self, attempt: int = 1, workers: int = 2, piece: int = 30, in_flight: int = 1) -> None:
        self.clock = Clock()
        self.sink = ListSink()
        self.pool = InProcessPool(worker_factories(SPEC, workers), clock=self.clock)
        self.scheduler = EqualSplit(attempt, piece, in_flight)
        self.coordinator = Coordinator(self.scheduler, self.pool, self.sink, self.clock)

    def step(self) -> None:
        self.clock.now += 0.5
        self.coordinator.step(0.0)
        self.coordinator.check_valid()

    def tokens(self) -> list[str]:
        return [str(result.token) for result in self.sink.results]


def same_results(one: list[WorkResult], other: list[WorkResult]) -> None:
    assert [result.token.sequence for result in one] == [result.token.sequence for result in other]
    for left, right in zip(one, other, strict=True):
        assert left.payload.keys() == right.payload.keys()
        for name, array in left.payload.items():
            np.testing.assert_array_equal(array, right.payload[name], err_msg=name)


def test_work_goes_out_comes_back_and_is_committed() -> None:
    world = World()
    coordinator = world.coordinator
    coordinator.demand(70)
    coordinator.demand(5, "evaluate")
    assert coordinator.figures().workers == 0
    assert coordinator.figures().in_flight == 0
    coordinator.publish(weights(1))
    assert coordinator.figures().workers == 2
    assert coordinator.figures().in_flight == 3
    assert (coordinator.outstanding(), coordinator.outstanding("evaluate")) == (70, 5)
    committed = [report for _ in range(6) for report in coordinator.step(0.0)]
    assert [(report.kind, report.amount) for report in committed] == [
        ("evaluate", 5),
        ("rollout", 30),
        ("rollout", 30),
        ("rollout", 30),
    ]
    assert world.tokens() == ["1/env-0/0", "1/env-1/1", "1/env-0/2", "1/env-1/3"]
    assert world.sink.weights == [1.0] * 4
    assert [report.samples for report in committed] == [result.samples for result in world.sink.results]
    assert (coordinator.outstanding(), coordinator.outstanding("evaluate")) == (0, 0)
    figures = coordinator.figures()
    assert (figures.handed_out, figures.committed, figures.dropped, figures.in_flight) == (4, 4, 0, 0)
    coordinator.check_valid()


def test_two_runs_play_the_same_columns() -> None:
    worlds = [World(in_flight=2), World(in_flight=2)]
    for world in worlds:
        for version in range(1, 8):
            world.coordinator.publish(weights(version))
            world.coordinator.demand(50)
            world.step()
            world.step()
    assert len(worlds[0].sink.results) > 8
    same_results(worlds[0].sink.results, worlds[1].sink.results)


@pytest.mark.parametrize(("workers", "in_flight", "per_commit"), [(1, 1, 1), (1, 3, 1), (2, 2, 1), (3, 1, 2)])
def test_staleness_is_at_most_what_is_published_while_the_pieces_in_hand_are_done(
    workers: int, in_flight: int, per_commit: int
) -> None:
    world = World(workers=workers, in_flight=in_flight, piece=3)
    versions = iter(range(1, 1000))
    world.coordinator.publish(weights(next(versions)))
    world.coordinator.demand(10_000)
    staleness = []
    for _ in range(40):
        staleness += [report.staleness for report in world.coordinator.step(0.0)]
        for _ in range(per_commit):
            world.coordinator.publish(weights(next(versions)))
    assert len(staleness) == 40
    assert max(staleness) == workers * in_flight * per_commit
    assert world.coordinator.figures().staleness == max(staleness)


def test_a_drained_run_goes_on_as_one_that_resumes_there() -> None:
    interrupted = World(in_flight=2)
    interrupted.coordinator.publish(weights(1))
    interrupted.coordinator.demand(170)
    interrupted.coordinator.demand(4, "evaluate")
    for _ in range(3):
        interrupted.step()
    drained = interrupted.coordinator.drain(timeout=5.0)
    assert drained
    assert interrupted.coordinator.figures().in_flight == 0
    assert interrupted.coordinator.outstanding() == 0
    interrupted.coordinator.reset_workers()
    state = json.loads(json.dumps(interrupted.coordinator.state_dict()))
    before = len(interrupted.sink.results)

    resumed = World(attempt=2, in_flight=2)
    resumed.coordinator.load_state_dict(state)
    for world in (interrupted, resumed):
        world.coordinator.publish(weights(2))
        world.coordinator.demand(100)
        for _ in range(8):
            world.step()
    assert len(resumed.sink.results) >= 3
    same_results(interrupted.sink.results[before:], resumed.sink.results)
    for name in ("handed_out", "committed", "dropped"):
        assert getattr(interrupted.coordinator.figures(), name) == getattr(resumed.coordinator.figures(), name)


def test_a_state_with_work_in_hand_has_it_done_again() -> None:
    first = World(in_flight=2)
    first.coordinator.publish(weights(1))
    first.coordinator.demand(120)
    first.step()
    state = json.loads(json.dumps(first.coordinator.state_dict()))
    assert state["dropped"] == 3
    second = World(attempt=2, in_flight=2)
    second.coordinator.load_state_dict(state)
    assert second.coordinator.outstanding() == 90
    second.coordinator.publish(weights(1))
    second.coordinator.drain(5.0)
    assert second.tokens() == ["2/env-0/4", "2/env-1/5", "2/env-0/6"]
    second.coordinator.check_valid()
    with pytest.raises(RuntimeError, match="before its first step"):
        second.coordinator.load_state_dict(state)


def test_demand_is_held_back_while_draining() -> None:
    class Hungry(ListSink):
        def commit(self, entries: list[tuple[WorkResult, float]]) -> None:
            super().commit(entries)
            world.coordinator.demand(30)

    world = World(workers=1)
    world.sink = Hungry()
    world.coordinator = Coordinator(world.scheduler, world.pool, world.sink, world.clock)
    world.coordinator.publish(weights(1))
    world.coordinator.demand(60)
    assert len(world.coordinator.drain(5.0)) == 2
    assert world.tokens() == ["1/env-0/0", "1/env-0/1"]
    assert world.coordinator.outstanding() == 60
    assert world.coordinator.figures().in_flight == 1


def test_draining_gives_up_in_time() -> None:
    clock, pool = Clock(), ScriptedPool()
    assign = Assign("env-0", Token(1, "env-0", 0), "rollout", 10, 1)
    coordinator = Coordinator(ScriptedScheduler([assign]), pool, ListSink(), clock)
    coordinator.demand(10)
    with pytest.raises(RuntimeError, match="1 pieces are in hand"):
        coordinator.reset_workers()

    def wait(timeout: float) -> list[PoolEvent]:
        clock.now += min(timeout, 1.5)
        return []

    pool.events = wait  # type: ignore[method-assign]
    with pytest.raises(TimeoutError, match="1 pieces of work are still in hand after 4 seconds"):
        coordinator.drain(4.0)
    assert clock.now == 4.0


def test_results_of_dropped_and_ended_work_are_discarded() -> None:
    pool, sink = ScriptedPool(), ListSink()
    one = Assign("env-0", Token(1, "env-0", 0), "evaluate", 10, 1)
    two = Assign("env-0", Token(1, "env-0", 1), "evaluate", 10, 1)
    scheduler = ScriptedScheduler([], [one, two], [Drop(one.token, "late")], [], [], [Commit(((two.token, 0.25),))])
    coordinator = Coordinator(scheduler, pool, sink, Clock())
    pool.script.append([Joined(0.0, "env-0")])
    coordinator.step(0.0)
    coordinator.demand(20)
    coordinator.demand(1)
    for assign in (one, two, two):
        pool.arrive(assign)
    assert coordinator.step(0.0) == []
    assert coordinator.step(0.0) == []
    assert coordinator.figures().results_waiting == 1
    assert coordinator.step(0.0) == []
    coordinator.check_valid()
    coordinator.demand(1)
    assert [result.token for result in sink.results] == [two.token]
    assert sink.weights == [0.25]
    pool.arrive(two)
    coordinator.step(0.0)
    figures = coordinator.figures()
    assert (figures.committed, figures.dropped, figures.late_results) == (1, 1, 3)
    coordinator.check_valid()


def test_a_result_that_waits_may_be_dropped() -> None:
    pool, sink = ScriptedPool(), ListSink()
    assign = Assign("env-0", Token(1, "env-0", 0), "evaluate", 10, 1)
    coordinator = Coordinator(ScriptedScheduler([assign], [], [Drop(assign.token, "too old")]), pool, sink, Clock())
    coordinator.demand(10)
    pool.arrive(assign)
    coordinator.step(0.0)
    assert coordinator.figures().results_waiting == 1
    coordinator.demand(10)
    coordinator.check_valid()
    figures = coordinator.figures()
    assert (figures.results_waiting, figures.in_flight, figures.dropped) == (0, 0, 1)
    assert sink.results == []


def test_a_token_handed_out_twice_is_a_fault_of_the_scheduler() -> None:
    assign = Assign("env-0", Token(1, "env-0", 3), "rollout", 10, 1)
    again = Assign("env-1", Token(1, "env-1", 3), "rollout", 10, 1)
    coordinator = Coordinator(ScriptedScheduler([assign, again]), ScriptedPool(), ListSink(), Clock())
    with pytest.raises(AssertionError, match="1/env-1/3 is handed out a second time"):
        coordinator.demand(1)


def test_check_valid_sees_work_left_with_a_lost_worker() -> None:
    assign = Assign("env-0", Token(1, "env-0", 0), "rollout", 10, 1)
    pool = ScriptedPool()
    coordinator = Coordinator(ScriptedScheduler([assign]), pool, ListSink(), Clock())
    pool.script += [[Joined(0.0, "env-0")], [Left(0.0, "env-0")]]
    coordinator.step(0.0)
    coordinator.check_valid()
    coordinator.step(0.0)
    with pytest.raises(AssertionError, match="workers that left"):
        coordinator.check_valid()


def test_the_scheduler_is_woken_when_it_wants_to_be() -> None:
    clock, pool = Clock(), ScriptedPool()
    scheduler = ScriptedScheduler([WakeAt(8.0), WakeAt(3.0), WakeAt(5.0)])
    coordinator = Coordinator(scheduler, pool, ListSink(), clock)
    coordinator.demand(1)
    coordinator.step(10.0)
    coordinator.step(0.5)
    clock.now = 2.0
    coordinator.step(10.0)
    assert [type(event) for event in scheduler.heard] == [Demand]
    clock.now = 3.25
    coordinator.step(10.0)
    coordinator.step(10.0)
    assert scheduler.heard[1:] == [Tick(3.25)]
    assert pool.timeouts == [3.0, 0.5, 1.0, 0.0, 10.0]


def test_a_refused_result_names_the_work() -> None:
    world = World(workers=1)
    world.sink.refuse = "column reward holds nan"
    world.coordinator.publish(weights(1))
    world.coordinator.demand(30)
    with pytest.raises(WorkFailed, match="env-0's rollout 1/env-0/0 is refused: column reward holds nan"):
        world.step()
    assert world.sink.results == []
    world.coordinator.check_valid()


class BoastfulPool(ScriptedPool):
    """Its worker claims more steps than it was asked for."""

    def take(self, token: Token) -> WorkResult:
        return replace(super().take(token), kind="train", amount=10**12)


def test_more_steps_than_were_asked_for_are_refused() -> None:
    pool, sink = BoastfulPool(), ListSink()
    assign = Assign("silo", Token(1, "silo", 0), "train", 10, 1)
    scheduler = ScriptedScheduler([], [assign], [Drop(assign.token, "refused")])
    said: list[str] = []
    coordinator = Coordinator(scheduler, pool, sink, Clock(), say=said.append)
    pool.script.append([Joined(0.0, "silo", 5)])
    coordinator.step(0.0)
    coordinator.demand(10)
    pool.arrive(assign)
    coordinator.step(0.0)
    assert isinstance(scheduler.heard[-1], Failed)
    assert "claims 1e+12 steps, and 10 were asked for" in scheduler.heard[-1].reason
    assert "refused" in said[0]
    assert not sink.results
    assert coordinator.figures().dropped == 1


def test_versions_go_up() -> None:
    world = World()
    world.coordinator.publish(weights(2))
    with pytest.raises(ValueError, match="version is 2: it must be above 2"):
        world.coordinator.publish(weights(2))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_a_killed_actor_is_replaced_and_its_work_is_applied_exactly_once() -> None:
    from ray import cloudpickle

    from isogon.actors.pools.ray_pool import RayPool

    from ..actors import toys

    cloudpickle.register_pickle_by_value(toys)  # type: ignore[no-untyped-call]
    piece, pieces = 9_000, 12
    sink = ListSink()
    pool = RayPool(hosts_of_one(worker_factories(SPEC, 2), max_restarts=3), clock=time.monotonic)
    coordinator = Coordinator(EqualSplit(1, piece, in_flight=2), pool, sink, time.monotonic)
    try:
        coordinator.publish(weights(1))
        deadline = time.monotonic() + 90
        while coordinator.figures().workers < 2:
            assert time.monotonic() < deadline
            coordinator.step(0.5)
        coordinator.demand(piece * pieces)
        killed = False
        while coordinator.outstanding() or coordinator.figures().worker_restarts == 0:
            assert time.monotonic() < deadline
            coordinator.step(0.5)
            coordinator.check_valid()
            if not killed and len(sink.results) >= 2:
                os.kill(pool.pids["env-0"], signal.SIGKILL)
                killed = True
    finally:
        pool.close()
    figures = coordinator.figures()
    assert figures.dropped >= 1
    assert (figures.committed, figures.worker_restarts) == (pieces, 1)
    assert max(Counter(result.token for result in sink.results).values()) == 1
    assert sum(result.amount for result in sink.results) == piece * pieces
    # What the replaced worker played is one unbroken game from its new beginning, and so is what the lost one had.
    for worker in ("env-0", "env-1"):
        follows: dict[int, int] = {}
        for result in (result for result in sink.results if result.token.worker == worker):
            assert follows.get(result.stream, 0) == result.first_step
            follows[result.stream] = result.first_step + len(result.payload["action"])
    assert figures.handed_out == figures.committed + figures.dropped


def test_too_many_failures_in_a_row_end_the_run_with_what_was_raised() -> None:
    """One piece that goes well between them begins the count anew."""
    pool, sink = ScriptedPool(), ListSink()
    pool.last_error = OSError("no emulator")
    coordinator = Coordinator(EqualSplit(1, 4), pool, sink, Clock(), most_failures=2)
    pool.script.append([Joined(0.0, "env-0")])
    coordinator.publish(PolicyState(1, {}))
    coordinator.demand(10, "evaluate")

    def fail() -> None:
        pool.script.append([Failed(0.0, "env-0", pool.submitted[-1].token, "OSError: no emulator")])
        coordinator.step(0.0)

    for _ in range(2):
        fail()
        fail()
        pool.arrive(pool.submitted[-1])
        coordinator.step(0.0)
        coordinator.demand(10, "evaluate")
    fail()
    fail()
    with pytest.raises(WorkFailed, match="no emulator; 3 pieces of work failed with none between") as raised:
        fail()
    assert raised.value.__cause__ is pool.last_error
    assert (coordinator.figures().failed, coordinator.figures().committed) == (7, 2)
