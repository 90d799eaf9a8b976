"""Federated clients on Ray: real processes, really killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray import cloudpickle

from isogon.actors.federation.worker import ClientWorker
from isogon.actors.pools.contract import PoolEvent
from isogon.actors.pools.hosts import HostSpec
from isogon.actors.pools.ray_pool import RayPool
from isogon.schedulers.events import Arrived, Joined, Left

from . import regression
from .client_pool_suite import LABELS, SEED, ClientPoolSuite, alone, global_model, same_answer, work
from .pool_suite import wait_for
from .regression import HANGS, Regression, client_factories

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

# Worker processes cannot import the tests: toys travel to them by value.
cloudpickle.register_pickle_by_value(regression)  # type: ignore[no-untyped-call]

Factories = Mapping[str, Callable[[], ClientWorker]]


def host(workers: Factories, **options: object) -> HostSpec:
    return HostSpec(workers, **{"num_cpus": 0.1, "labels": LABELS, **options})  # type: ignore[arg-type]


@contextmanager
def pool_of(*hosts: HostSpec, joined: int) -> Iterator[RayPool]:
    pool = RayPool(hosts, clock=time.monotonic, failures="tell")
    try:
        wait_for(pool, Joined, joined)
        pool.publish(global_model(1))
        yield pool
    finally:
        pool.close()


def told(events: list[PoolEvent]) -> set[tuple[str, str]]:
    return {(type(event).__name__, event.worker) for event in events}


class TestRayClients(ClientPoolSuite):
    """All clients in one process."""

    def make(self, names: list[str]) -> RayPool:
        return RayPool([host(client_factories(Regression(), names, SEED))], clock=time.monotonic, failures="tell")


def test_with_a_process_all_of_its_clients_leave_and_come_back() -> None:
    factories = client_factories(Regression(), ["a", "b", "c"], SEED, seconds_per_step=0.02)
    with pool_of(host({name: factories[name] for name in ("a", "b")}), host({"c": factories["c"]}), joined=3) as pool:
        pid = pool.pids["a"]
        assert pool.pids["b"] == pid != pool.pids["c"]
        pool.submit(work("a", 0, amount=1000))
        os.kill(pid, signal.SIGKILL)
        left = wait_for(pool, Left, 2)
        assert told(left) == {("Left", "a"), ("Left", "b")}
        # The caller has not read so far; and who did not leave goes on.
        for sequence, name in enumerate("abc", 1):
            pool.submit(work(name, sequence))
        events = wait_for(pool, Joined, 2)
        events += [] if ("Arrived", "c") in told(events) else wait_for(pool, Arrived)
        assert told(events) == {("Joined", "a"), ("Joined", "b"), ("Arrived", "c")}
        assert pool.pids["a"] == pool.pids["b"] != pid
        assert pool.restarts == 1
        pool.submit(work("b", 4))
        (arrived,) = wait_for(pool, Arrived)
        assert isinstance(arrived, Arrived)
        assert arrived.token.sequence == 4


def test_clients_of_one_process_work_at_the_same_time() -> None:
    names = [f"c{i}" for i in range(8)]
    factories = client_factories(Regression(), names, SEED, seconds_per_step=0.1)
    with pool_of(host(factories), joined=8) as pool:
        begun = time.monotonic()
        for sequence, name in enumerate(names):
            pool.submit(work(name, sequence, amount=10))
        events = wait_for(pool, Arrived, 8)
        took = time.monotonic() - begun
        seconds = [event.compute_seconds for event in events if isinstance(event, Arrived)]
    assert min(seconds) >= 0.99
    assert took < 4.0 < sum(seconds)


def test_a_client_that_hangs_holds_up_nobody_and_answers_late(tmp_path: Path) -> None:
    released = tmp_path / "released"
    factories = client_factories(Regression(released), ["north", "south"], SEED)
    with pool_of(host(factories), joined=2) as pool:
        pool.submit(work("north", 0, amount=HANGS))
        for sequence in range(1, 4):
            pool.submit(work("south", sequence))
        assert told(wait_for(pool, Arrived, 3)) == {("Arrived", "south")}
        assert pool.events(0.2) == []
        # Given up, it is asked again: that waits behind what hangs.
        pool.submit(work("north", 4))
        released.touch()
        late = [event.token.sequence for event in wait_for(pool, Arrived, 2) if isinstance(event, Arrived)]
        assert late == [0, 4]
        # One client of a process can be removed alone.
        pool.remove("south")
        assert told(wait_for(pool, Left)) == {("Left", "south")}
        pool.submit(work("north", 5))
        assert told(wait_for(pool, Arrived)) == {("Arrived", "north")}
        with pytest.raises(ValueError, match="worker is 'south': the pool has north"):
            pool.remove("south")


def test_clients_join_late_and_leave_for_good() -> None:
    factories = client_factories(Regression(), ["north", "south", "empty", "west"], SEED)
    nowhere = host({"west": factories["west"]}, label_selector={"zone": "moon"}, setting="clients.label_selector")
    with pool_of(host({"north": factories["north"]}), nowhere, joined=1) as pool:
        assert pool.missing().startswith(
            "clients.label_selector is zone=moon, and the cluster has these nodes: 1 with "
        )
        with pytest.raises(ValueError, match="workers has north: the pool has one of that name already"):
            pool.add(host({"north": factories["north"]}))
        pool.add(host({"south": factories["south"], "empty": factories["empty"]}))
        events = wait_for(pool, Joined)
        events += [] if ("Left", "empty") in told(events) else wait_for(pool, Left)
        assert told(events) == {("Joined", "south"), ("Left", "empty")}
        pid = pool.pids["north"]
        pool.submit(work("north", 0))
        pool.remove("north")
        # The caller has not heard of it yet.
        pool.submit(work("north", 1))
        (left,) = wait_for(pool, Left)
        assert isinstance(left, Left)
        assert (left.worker, left.reason) == ("north", "removed")
        pool.submit(work("south", 2))
        (arrived,) = wait_for(pool, Arrived)
        assert isinstance(arrived, Arrived)
        same_answer(pool.take(arrived.token), alone(work("south", 2)))
        with pytest.raises(ValueError, match="worker is 'north': the pool has south"):
            pool.submit(work("north", 3))
        deadline = time.monotonic() + 20
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not os.path.exists(f"/proc/{pid}")
        pool.add(host({"north": factories["north"]}))
        assert told(wait_for(pool, Joined)) == {("Joined", "north")}
