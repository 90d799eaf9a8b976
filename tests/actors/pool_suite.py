"""What every pool is put through.

A test module subclasses `PoolSuite` and `PoolLifeSuite` and says how its pool is made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest

from isogon.actors.columns import check_columns
from isogon.actors.pools.contract import Pool, PoolEvent, WorkFailed
from isogon.actors.work import WorkResult
from isogon.actors.worker import Worker, WorkerSpec
from isogon.schedulers.events import Arrived, Assign, Joined, Token, WorkKind

from .toys import Corridor, break_at_once, corridor_spec, make_broken_corridor, weights

SPEC = corridor_spec()
PATIENCE = 60.0


def wait_for(pool: Pool, wanted: type[PoolEvent] | tuple[type[PoolEvent], ...], number: int = 1) -> list[PoolEvent]:
    """Events until so many of a kind are among them."""
    events: list[PoolEvent] = []
    deadline = time.monotonic() + PATIENCE
    while sum(isinstance(event, wanted) for event in events) < number:
        assert time.monotonic() < deadline, f"{number} {wanted} did not come: {events}"
        events += pool.events(1.0)
    return events


def piece(worker: str, sequence: int, amount: int = 30, kind: WorkKind = "rollout", version: int = 1) -> Assign:
    return Assign(worker, Token(1, worker, sequence), kind, amount, version)


def same_payload(one: WorkResult, other: WorkResult) -> None:
    assert one.payload.keys() == other.payload.keys()
    assert (one.stream, one.first_step) == (other.stream, other.first_step)
    for name, array in one.payload.items():
        np.testing.assert_array_equal(array, other.payload[name], err_msg=name)


class PoolSuite:
    """Two workers, ``env-0`` and ``env-1``, shared by the tests of a class: each begins anew and uses new tokens."""

    def make(self, spec: WorkerSpec, workers: int) -> Pool:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def shared_pool(cls) -> Iterator[Pool]:
        pool = cls().make(SPEC, 2)
        joined = wait_for(pool, Joined, 2)
        assert {event.worker for event in joined} == {"env-0", "env-1"}
        assert all(isinstance(event, Joined) for event in joined)
        yield pool
        pool.close()

    @pytest.fixture
    def pool(self, shared_pool: Pool) -> Pool:
        shared_pool.reset_workers()
        shared_pool.publish(weights(1))
        return shared_pool

    def test_nothing_happens_when_nothing_is_in_hand(self, pool: Pool) -> None:
        assert pool.events(0.0) == []

    def test_work_comes_back_done(self, pool: Pool) -> None:
        assign = piece("env-0", 10, amount=31)
        pool.submit(assign)
        (event,) = wait_for(pool, Arrived)
        assert isinstance(event, Arrived)
        assert (event.worker, event.token, event.version) == ("env-0", assign.token, 1)
        result = pool.take(assign.token)
        check_columns(result.payload, Corridor(3).spec)
        assert (result.token, result.kind, result.version) == (assign.token, "rollout", 1)
        assert event.amount == result.amount == 33
        assert event.samples == result.samples == result.payload["valid"].sum()
        assert event.nbytes == sum(array.nbytes for array in result.payload.values())
        assert event.compute_seconds == result.compute_seconds > 0
        assert event.link_seconds >= 0

    def test_an_evaluation_comes_back_as_scores(self, pool: Pool) -> None:
        assign = piece("env-1", 20, amount=9, kind="evaluate")
        pool.submit(assign)
        wait_for(pool, Arrived)
        result = pool.take(assign.token)
        assert {name: array.shape for name, array in result.payload.items()} == {"return": (9,), "length": (9,)}
        same_payload(result, Worker(0, SPEC).run(assign, weights(1)))

    def test_a_result_is_taken_once(self, pool: Pool) -> None:
        assign = piece("env-0", 30)
        with pytest.raises(KeyError):
            pool.take(assign.token)
        pool.submit(assign)
        wait_for(pool, Arrived)
        pool.take(assign.token)
        with pytest.raises(KeyError):
            pool.take(assign.token)

    def test_each_worker_plays_as_it_would_alone(self, pool: Pool) -> None:
        tokens = count(40)
        assigns = [piece(worker, next(tokens), amount) for amount in (30, 6, 18) for worker in ("env-0", "env-1")]
        for assign in assigns:
            pool.submit(assign)
        arrived = [event.token for event in wait_for(pool, Arrived, len(assigns)) if isinstance(event, Arrived)]
        for index in range(2):
            mine = [assign for assign in assigns if assign.worker == f"env-{index}"]
            assert [token for token in arrived if token.worker == f"env-{index}"] == [a.token for a in mine]
            alone = Worker(index, SPEC)
            for assign in mine:
                same_payload(pool.take(assign.token), alone.run(assign, weights(1)))

    def test_rollouts_tell_what_they_continue(self, pool: Pool) -> None:
        for sequence, amount in ((80, 30), (81, 7), (82, 30)):
            pool.submit(piece("env-0", sequence, amount))
        wait_for(pool, Arrived, 3)
        results = [pool.take(Token(1, "env-0", sequence)) for sequence in (80, 81, 82)]
        assert [(result.stream, result.first_step) for result in results] == [(80, 0), (80, 10), (80, 13)]
        for before, after in pairwise(results):
            for name in ("observation/position", "observation/length"):
                np.testing.assert_array_equal(before.payload[name][-1], after.payload[name][0])

    def test_workers_begin_anew_when_told(self, pool: Pool) -> None:
        pool.submit(piece("env-0", 50))
        wait_for(pool, Arrived)
        with pytest.raises(RuntimeError, match="1 pieces are in hand"):
            pool.reset_workers()
        pool.take(Token(1, "env-0", 50))
        pool.reset_workers()
        pool.submit(piece("env-0", 51))
        wait_for(pool, Arrived)
        same_payload(pool.take(Token(1, "env-0", 51)), Worker(0, SPEC).run(piece("env-0", 51), weights(1)))

    def test_work_is_done_with_the_version_it_was_given_with(self, pool: Pool) -> None:
        pool.submit(piece("env-0", 60))
        pool.publish(weights(2))
        pool.submit(piece("env-0", 61, version=2))
        wait_for(pool, Arrived, 2)
        alone = Worker(0, SPEC)
        for sequence, version in ((60, 1), (61, 2)):
            result = pool.take(Token(1, "env-0", sequence))
            assert result.version == version
            assert (result.payload["version"] == version).all()
            same_payload(result, alone.run(piece("env-0", sequence, version=version), weights(version)))

    def test_unknown_workers_and_versions_are_refused(self, pool: Pool) -> None:
        with pytest.raises(ValueError, match="worker is 'env-9'"):
            pool.submit(piece("env-9", 70))
        with pytest.raises(ValueError, match="version is 3: the newest published version is 1"):
            pool.submit(piece("env-0", 71, version=3))


class PoolLifeSuite:
    """How a pool begins and ends; each test has one of its own."""

    def make(self, spec: WorkerSpec, workers: int) -> Pool:
        raise NotImplementedError

    def test_code_that_raises_ends_the_pool(self) -> None:
        pool = self.make(replace(SPEC, environment=make_broken_corridor), 1)
        try:
            wait_for(pool, Joined)
            pool.publish(weights(1))
            pool.submit(piece("env-0", 0, amount=12))
            wait_for(pool, Arrived)
            pool.submit(piece("env-0", 1))
            with pytest.raises(WorkFailed, match="env-0 failed at rollout 1/env-0/1: ArithmeticError: the floor gave"):
                wait_for(pool, Arrived)
        finally:
            pool.close()

    def test_a_worker_that_cannot_start_ends_the_pool(self) -> None:
        with pytest.raises(WorkFailed, match="start: OSError: no corridor today"):
            wait_for(self.make(replace(SPEC, environment=break_at_once), 1), Joined)

    def test_it_can_be_closed_twice(self) -> None:
        pool = self.make(SPEC, 1)
        wait_for(pool, Joined)
        pool.publish(weights(1))
        pool.submit(piece("env-0", 0))
        pool.close()
        pool.close()
        assert pool.events(0.0) == []
        with pytest.raises(ValueError, match="worker is 'env-0'"):
            pool.submit(piece("env-0", 1))

    def test_it_wants_a_worker(self) -> None:
        with pytest.raises(ValueError, match="workers is 0"):
            self.make(SPEC, 0)
