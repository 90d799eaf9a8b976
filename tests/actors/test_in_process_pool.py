from __future__ import annotations

import subprocess
import sys
import time

import pytest

from isogon.actors.pools import InProcessPool
from isogon.actors.worker import WorkerSpec, worker_factories
from isogon.schedulers.events import Arrived, Joined

from .client_pool_suite import LABELS, SEED, ClientPoolSuite
from .pool_suite import PoolLifeSuite, PoolSuite, piece, wait_for
from .regression import Regression, client_factories
from .toys import Corridor, Shift, weights


def make_pool(spec: WorkerSpec, workers: int) -> InProcessPool:
    return InProcessPool(worker_factories(spec, workers), clock=lambda: 12.5)


class TestInProcessPool(PoolSuite):
    def make(self, spec: WorkerSpec, workers: int) -> InProcessPool:
        return make_pool(spec, workers)


class TestInProcessPoolLife(PoolLifeSuite):
    def make(self, spec: WorkerSpec, workers: int) -> InProcessPool:
        return make_pool(spec, workers)


def test_one_piece_a_call_in_the_order_of_submission() -> None:
    pool = make_pool(WorkerSpec(lambda _, envs: Corridor(envs), Shift, num_envs=2, seed=0), 2)
    pool.publish(weights(1))
    assert pool.events(0.0) == [Joined(12.5, "env-0"), Joined(12.5, "env-1")]
    order = [("env-1", 0), ("env-0", 1), ("env-1", 2)]
    for worker, sequence in order:
        pool.submit(piece(worker, sequence))
    for worker, sequence in order:
        (event,) = pool.events(0.0)
        assert isinstance(event, Arrived)
        assert (event.worker, event.token.sequence, event.time) == (worker, sequence, 12.5)


def test_closing_closes_the_environments() -> None:
    made: list[Corridor] = []

    def make(_: object, envs: int) -> Corridor:
        made.append(Corridor(envs))
        return made[-1]

    pool = make_pool(WorkerSpec(make, Shift, num_envs=2, seed=0), 1)
    wait_for(pool, Joined)
    pool.publish(weights(1))
    pool.submit(piece("env-0", 0, kind="evaluate"))
    wait_for(pool, Arrived)
    pool.close()
    assert [environment.closed for environment in made] == [True, True]


def test_pools_load_no_ray() -> None:
    code = "import sys, isogon.actors.pools; assert 'ray' not in sys.modules, 'Ray was loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestInProcessClients(ClientPoolSuite):
    def make(self, names: list[str]) -> InProcessPool:
        labels = dict.fromkeys(names, LABELS)
        factories = client_factories(Regression(), names, SEED)
        return InProcessPool(factories, clock=time.monotonic, failures="tell", labels=labels)


def test_a_pool_wants_workers() -> None:
    with pytest.raises(ValueError, match="workers is empty"):
        InProcessPool({}, clock=time.monotonic)
