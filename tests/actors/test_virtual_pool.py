from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from isogon.actors.pools.contract import PoolEvent, PoolExhausted
from isogon.actors.pools.virtual import Duration, VirtualPool, VirtualWorker
from isogon.actors.worker import WorkerSpec, worker_factories
from isogon.schedulers.events import Arrived, Joined, Left

from .client_pool_suite import LABELS, SEED, ClientPoolSuite, alone, global_model, same_answer, work
from .pool_suite import PoolLifeSuite, PoolSuite, wait_for
from .regression import Regression, client_factories

NAMES = ["north", "south", "empty"]
AT_ONCE = Duration(0.0, 0.0, 0.0, 0.0)
PARTS = Duration(down=1.0, wait=2.0, compute=0.0, up=4.0)


@dataclass(frozen=True)
class Steady:
    """Worker i takes i + 1 seconds a step; pieces named in ``instead`` go another way."""

    parts: Duration = AT_ONCE
    instead: tuple[tuple[int, Duration], ...] = ()

    def train(self, index: int, sequence: int, amount: int, nbytes_down: int, nbytes_up: int) -> Duration:
        return dict(self.instead).get(sequence, replace(self.parts, compute=(index + 1.0) * amount))


def make_clients(
    names: list[str] = NAMES,
    durations: Steady = Steady(),
    joins_at: dict[str, float] | None = None,
    leaves_at: dict[str, float] | None = None,
    resident: int | None = None,
) -> VirtualPool:
    factories = client_factories(Regression(), names, SEED)
    workers = {
        name: VirtualWorker(make, (joins_at or {}).get(name, 0.0), (leaves_at or {}).get(name, math.inf), LABELS)
        for name, make in factories.items()
    }
    return VirtualPool(workers, durations, failures="tell", resident=resident, evaluation_seconds=0.25)


def rollout_pool(spec: WorkerSpec, workers: int) -> VirtualPool:
    return VirtualPool({name: VirtualWorker(make) for name, make in worker_factories(spec, workers).items()}, Steady())


def all_events(pool: VirtualPool, until: float) -> list[PoolEvent]:
    """What happens until a virtual time, which the clock then shows."""
    events: list[PoolEvent] = []
    while pool.clock() < until:
        events += pool.events(until - pool.clock())
    return events


def told(events: list[PoolEvent]) -> list[tuple[float, str, str]]:
    return [(event.time, type(event).__name__, event.worker) for event in events]


class TestVirtualPool(PoolSuite):
    def make(self, spec: WorkerSpec, workers: int) -> VirtualPool:
        return rollout_pool(spec, workers)


class TestVirtualPoolLife(PoolLifeSuite):
    def make(self, spec: WorkerSpec, workers: int) -> VirtualPool:
        return rollout_pool(spec, workers)


class TestVirtualClients(ClientPoolSuite):
    def make(self, names: list[str]) -> VirtualPool:
        return make_clients(names)


def test_results_arrive_when_their_durations_say() -> None:
    pool = make_clients(durations=Steady(PARTS), joins_at={"south": 3.0})
    pool.publish(global_model(1))
    assert told(pool.events(0.0)) == [(0.0, "Joined", "north"), (0.0, "Left", "empty")]
    pool.submit(work("north", 0, amount=10))
    pool.submit(work("north", 1, amount=4, kind="evaluate"))
    assert told(pool.events(100.0)) == [(3.0, "Joined", "south")]
    pool.submit(work("south", 2, amount=5))
    assert pool.events(13.9) == []
    assert pool.clock() == 16.9
    (arrived,) = pool.events(0.125)
    assert isinstance(arrived, Arrived)
    assert (arrived.time, arrived.token, pool.clock()) == (17.0, work("north", 0).token, 17.0)
    assert (arrived.compute_seconds, arrived.link_seconds) == (10.0, 7.0)
    assert pool.take(arrived.token).compute_seconds == 10.0
    # At one instant, 20 seconds, nothing is before its time, and the evaluation came after its client's training.
    assert told(all_events(pool, 30.0)) == [(18.0, "Arrived", "north"), (20.0, "Arrived", "south")]
    assert pool.clock() == 30.0


def test_what_happens_at_one_instant_comes_in_the_order_of_submission() -> None:
    names = [f"c{i}" for i in range(4)]
    pool = make_clients(names, Steady(instead=tuple((i, Duration(0, 0, 8.0, 0)) for i in range(4))))
    pool.publish(global_model(1))
    pool.events(0.0)
    for sequence, index in enumerate((2, 0, 3, 1)):
        pool.submit(work(f"c{index}", sequence))
    # In one call: a timer that is due at 8 seconds then comes after them all.
    assert [event.worker for event in pool.events(8.0)] == ["c2", "c0", "c3", "c1"]
    assert pool.clock() == 8.0


def test_who_is_back_at_once_is_told_of_in_a_later_call() -> None:
    lost = Duration(0.0, 0.0, 5.0, 0.0, lost=True, back_after=0.0)
    pool = make_clients(durations=Steady(instead=((0, lost), (1, Duration(5.0, 0.0, 0.0, 0.0)))))
    pool.publish(global_model(1))
    wait_for(pool, Joined, 2)
    pool.submit(work("north", 0))
    pool.submit(work("south", 1))
    assert told(pool.events(9.0)) == [(5.0, "Left", "north"), (5.0, "Arrived", "south")]
    pool.submit(work("north", 2))
    assert told(pool.events(9.0)) == [(5.0, "Joined", "north")]
    pool.submit(work("north", 3, amount=1))
    (arrived,) = all_events(pool, 50.0)
    assert told([arrived]) == [(6.0, "Arrived", "north")]


def test_a_client_that_drops_out_loses_its_work_and_comes_back() -> None:
    lost = Duration(0.0, 0.0, 5.0, 0.0, lost=True, back_after=20.0)
    pool = make_clients(durations=Steady(instead=((0, lost), (3, replace(lost, back_after=math.inf)))))
    pool.publish(global_model(1))
    pool.events(0.0)
    wait_for(pool, Joined) if "south" not in pool._present else None
    pool.submit(work("north", 0))
    pool.submit(work("north", 1, kind="evaluate"))
    (left,) = pool.events(50.0)
    assert told([left]) == [(5.0, "Left", "north")]
    # The caller has not heard of it yet.
    pool.submit(work("north", 2))
    assert told(all_events(pool, 40.0)) == [(25.0, "Joined", "north")]
    assert pool.restarts == 1
    pool.submit(work("north", 3))
    assert told(all_events(pool, 60.0)) == [(45.0, "Left", "north")]
    pool.events(0.0)
    with pytest.raises(ValueError, match="worker is 'north': the pool has south"):
        pool.submit(work("north", 4))


def test_a_client_leaves_for_good_with_its_work_in_hand() -> None:
    lost = Duration(0.0, 0.0, 5.0, 0.0, lost=True, back_after=20.0)
    pool = make_clients(durations=Steady(instead=((0, lost),)), leaves_at={"north": 25.0, "south": 30.0})
    pool.publish(global_model(1))
    wait_for(pool, Joined, 2)
    pool.submit(work("north", 0))
    pool.submit(work("south", 1, amount=10))
    pool.submit(work("south", 2, amount=6))
    # North would be back at the moment at which it leaves.
    events = all_events(pool, 29.0)
    assert told(events) == [(5.0, "Left", "north"), (20.0, "Arrived", "south")]
    assert told(pool.events(90.0)) == [(30.0, "Left", "south")]
    with pytest.raises(PoolExhausted):
        pool.events(90.0)


def test_a_client_that_hangs_never_answers() -> None:
    pool = make_clients(durations=Steady(instead=((0, Duration(0.0, math.inf, 1.0, 0.0)),)))
    pool.publish(global_model(1))
    wait_for(pool, Joined, 2)
    pool.submit(work("north", 0))
    pool.submit(work("south", 1, amount=3))
    assert told(all_events(pool, 1e6)) == [(6.0, "Arrived", "south")]


def test_few_clients_in_memory_answer_as_all_would() -> None:
    names = [f"c{i}" for i in range(20)]

    def answers(resident: int | None) -> tuple[list[PoolEvent], list[float]]:
        pool = make_clients(names, resident=resident)
        pool.publish(global_model(1))
        wait_for(pool, Joined, 20)
        for sequence in range(60):
            pool.submit(work(names[sequence * 7 % 20], sequence, amount=1 + sequence % 3))
        events = all_events(pool, 1000.0)
        results = [pool.take(event.token) for event in events if isinstance(event, Arrived)]
        assert len(results) == 60
        return events, [float(result.payload["weight"][0]) for result in results]

    assert answers(2) == answers(None)


def test_clients_that_are_not_used_are_closed() -> None:
    pool = make_clients(["a", "b", "c"], resident=2)
    wait_for(pool, Joined, 3)
    assert list(pool._resident) == ["b", "c"]


def test_work_is_what_it_is_without_a_pool() -> None:
    pool = make_clients()
    pool.publish(global_model(1))
    wait_for(pool, Joined, 2)
    assign = work("south", 9)
    pool.submit(assign)
    wait_for(pool, Arrived)
    same_answer(pool.take(assign.token), replace(alone(assign), compute_seconds=0.0))


def test_a_pool_whose_last_client_left_for_good_is_exhausted() -> None:
    gone = Duration(0.0, 0.0, 5.0, 0.0, lost=True, back_after=math.inf)
    pool = make_clients(["north"], Steady(instead=((0, gone),)))
    pool.publish(global_model(1))
    wait_for(pool, Joined)
    pool.submit(work("north", 0))
    wait_for(pool, Left)
    with pytest.raises(PoolExhausted):
        pool.events(1.0)


@pytest.mark.parametrize("timeout", [-1.0, math.inf, math.nan])
def test_a_timeout_moves_the_clock(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is"):
        make_clients().events(timeout)


def test_a_run_taken_up_goes_on_at_its_time() -> None:
    workers = {name: VirtualWorker(make, at) for (name, make), at in zip(FACTORIES.items(), (0.0, 150.0), strict=True)}
    pool = VirtualPool(workers, Steady(), begins_at=100.0)
    assert told(all_events(pool, 200.0)) == [(100.0, "Joined", "north"), (150.0, "Joined", "south")]


FACTORIES = client_factories(Regression(), ["north", "south"], SEED)


@pytest.mark.parametrize("part", ["down", "wait", "compute", "up", "back_after"])
@pytest.mark.parametrize("value", [-0.5, math.nan])
def test_durations_are_not_negative(part: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{part} is {value}"):
        replace(PARTS, **{part: value})  # type: ignore[arg-type]
