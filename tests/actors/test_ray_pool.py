from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from isogon.actors.pools import PoolExhausted
from isogon.actors.pools.hosts import hosts_of_one
from isogon.actors.pools.ray_pool import RayPool
from isogon.actors.worker import Worker, WorkerSpec, worker_factories
from isogon.schedulers.events import Arrived, Joined, Left

from . import toys
from .pool_suite import PoolLifeSuite, PoolSuite, piece, same_payload, wait_for
from .toys import corridor_spec, weights

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

# Worker processes cannot import the tests: toys travel to them by value.
cloudpickle.register_pickle_by_value(toys)  # type: ignore[no-untyped-call]

SLOW = 40_000
"""Steps that take a worker a few seconds."""


def make_pool(spec: WorkerSpec, workers: int, max_restarts: int = 3) -> RayPool:
    return RayPool(hosts_of_one(worker_factories(spec, workers), max_restarts=max_restarts), clock=time.monotonic)


class TestRayPool(PoolSuite):
    def make(self, spec: WorkerSpec, workers: int) -> RayPool:
        return make_pool(spec, workers)


class TestRayPoolLife(PoolLifeSuite):
    def make(self, spec: WorkerSpec, workers: int) -> RayPool:
        return make_pool(spec, workers)


def test_a_killed_worker_leaves_and_comes_back_and_its_work_is_lost() -> None:
    spec = corridor_spec()
    pool = make_pool(spec, 1)
    try:
        wait_for(pool, Joined)
        pool.publish(weights(1))
        for sequence in range(2):
            pool.submit(piece("env-0", sequence, SLOW))
        first_pid = pool.pids["env-0"]
        os.kill(first_pid, signal.SIGKILL)
        (left,) = wait_for(pool, Left)
        assert isinstance(left, Left)
        assert left.worker == "env-0"
        assert "ActorUnavailableError" in left.reason or "ActorDiedError" in left.reason
        assert pool.pids == {}
        # The caller has not heard of it yet: what it submits now goes down with the rest.
        pool.submit(piece("env-0", 2))
        (joined,) = wait_for(pool, Joined)
        assert (joined.worker, pool.restarts) == ("env-0", 1)
        assert pool.pids["env-0"] != first_pid
        again = piece("env-0", 3)
        pool.submit(again)
        (arrived,) = wait_for(pool, Arrived)
        assert isinstance(arrived, Arrived)
        assert arrived.token == again.token
        for sequence in range(3):
            with pytest.raises(KeyError):
                pool.take(piece("env-0", sequence).token)
        same_payload(pool.take(again.token), Worker(0, spec).run(again, weights(1)))
        assert pool.events(0.2) == []
    finally:
        pool.close()


def test_a_pool_goes_on_with_the_workers_it_has_and_ends_with_the_last() -> None:
    pool = make_pool(corridor_spec(), 2, max_restarts=0)
    try:
        wait_for(pool, Joined, 2)
        pool.publish(weights(1))
        pool.submit(piece("env-0", 0, SLOW))
        os.kill(pool.pids["env-0"], signal.SIGKILL)
        wait_for(pool, Left)
        pool.submit(piece("env-1", 1))
        wait_for(pool, Arrived)
        pool.take(piece("env-1", 1).token)
        pool.submit(piece("env-1", 2, SLOW))
        os.kill(pool.pids["env-1"], signal.SIGKILL)
        wait_for(pool, Left)
        for _ in range(2):
            with pytest.raises(PoolExhausted, match="no worker is left; env-1 was the last: ActorDiedError"):
                wait_for(pool, Joined)
    finally:
        pool.close()


def test_processes_that_die_while_they_start_are_counted(tmp_path: Path) -> None:
    pool = make_pool(replace(corridor_spec(), environment=partial(toys.make_mortal_corridor, tmp_path, 2)), 1)
    try:
        wait_for(pool, Joined)
        assert pool.restarts == 2
    finally:
        pool.close()
    assert pool.restarts == 2


def test_a_worker_that_hangs_is_ended_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    spec = replace(corridor_spec(), environment=partial(toys.make_hanging_corridor, tmp_path))
    hosts = hosts_of_one(worker_factories(spec, 2), max_restarts=3)
    pool = RayPool(hosts, clock=time.monotonic, hangs_after=4.0)
    try:
        wait_for(pool, Joined, 2)
        pool.publish(weights(1))
        pool.submit(piece("env-0", 0))
        (left,) = wait_for(pool, Left)
        assert isinstance(left, Left)
        assert (left.worker, left.reason) == ("env-0", "it hung: no answer for 4 seconds, so its process was ended")
        wait_for(pool, Joined)
        for worker in ("env-0", "env-1"):
            pool.submit(piece(worker, 1))
        arrived = wait_for(pool, Arrived, 2)
        assert {event.worker for event in arrived} == {"env-0", "env-1"}
        assert pool.restarts == 1
    finally:
        pool.close()


def test_what_is_missing_is_told_with_what_there_is() -> None:
    selector = {"zone": "left", "tier": "!spot"}
    hosts = hosts_of_one(
        worker_factories(corridor_spec(), 1), max_restarts=0, label_selector=selector, setting="actors.label_selector"
    )
    pool = RayPool(hosts, clock=time.monotonic)
    try:
        assert pool.events(1.0) == []
        told = pool.missing()
    finally:
        pool.close()
    assert told.startswith("actors.label_selector is tier=!spot, zone=left, and the cluster has these nodes: 1 with ")
    assert "no labels and 2 CPUs" in told


def test_closing_ends_the_processes() -> None:
    pool = make_pool(corridor_spec(), 1)
    wait_for(pool, Joined)
    pid = pool.pids["env-0"]
    pool.close()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_it_wants_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match="Ray is not initialised"):
        make_pool(corridor_spec(), 1)
