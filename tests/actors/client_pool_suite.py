"""What every pool is put through whose workers are federated clients.

A test module subclasses `ClientPoolSuite` and says how its pool is made.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from isogon.actors.federation.client import Silo
from isogon.actors.federation.worker import ClientWorker
from isogon.actors.pools.contract import Pool, PoolEvent, PoolExhausted
from isogon.actors.work import PolicyState, WorkResult
from isogon.schedulers.events import Arrived, Assign, Failed, Joined, Left, Token, WorkKind

from .pool_suite import wait_for
from .regression import BREAKS, GROWS, Regression

NAMES = ["north", "south", "empty"]
LABELS = {"zone": "left"}
SEED = 5


def global_model(version: int) -> PolicyState:
    return PolicyState(version, {"weight": np.array([0.5, -1.0, version]), "seen": np.array(100 * version)})


def work(worker: str, sequence: int, amount: int = 7, kind: WorkKind = "train", version: int = 1) -> Assign:
    return Assign(worker, Token(1, worker, sequence), kind, amount, version, rate_scale=0.5)


def alone(assign: Assign) -> WorkResult:
    """What the client answers where there is no pool."""
    silo = Silo(assign.worker, NAMES.index(assign.worker), len(NAMES), SEED)
    return ClientWorker(Regression(), silo).run(assign, global_model(assign.version))


def same_answer(one: WorkResult, other: WorkResult) -> None:
    assert (one.token, one.kind, one.version, one.amount) == (other.token, other.kind, other.version, other.amount)
    assert (one.samples, one.stats) == (other.samples, other.stats)
    assert one.payload.keys() == other.payload.keys()
    for name, array in one.payload.items():
        np.testing.assert_array_equal(array, other.payload[name], err_msg=name, strict=True)


class ClientPoolSuite:
    """Clients of `NAMES`; the tests of a class share a pool, and each uses new tokens."""

    def make(self, names: list[str]) -> Pool:
        """A pool of these clients, with `LABELS` and `SEED`, that tells of failures."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def begun(cls) -> Iterator[tuple[Pool, list[PoolEvent]]]:
        pool = cls().make(NAMES)
        events: list[PoolEvent] = []
        while len(events) < len(NAMES):
            events += wait_for(pool, (Joined, Left))
        yield pool, events
        pool.close()

    @pytest.fixture
    def pool(self, begun: tuple[Pool, list[PoolEvent]]) -> Pool:
        begun[0].publish(global_model(1))
        return begun[0]

    def test_clients_join_with_their_samples_and_one_without_data_is_left_out(
        self, begun: tuple[Pool, list[PoolEvent]]
    ) -> None:
        pool, events = begun
        joined = {event.worker: event for event in events if isinstance(event, Joined)}
        assert {name: event.samples for name, event in joined.items()} == {"north": 10, "south": 11}
        assert all(event.labels == LABELS for event in joined.values())
        (left,) = [event for event in events if isinstance(event, Left)]
        assert (left.worker, left.reason) == ("empty", "failed to start: ValueError: empty has no data")
        assert "empty failed to start: ValueError: empty has no data" in pool.missing()

    def test_work_comes_back_as_an_update(self, pool: Pool) -> None:
        assign = work("south", 10)
        pool.submit(assign)
        (event,) = wait_for(pool, Arrived)
        assert isinstance(event, Arrived)
        assert (event.worker, event.token, event.version) == ("south", assign.token, 1)
        assert (event.amount, event.samples, event.nbytes) == (7, 11, 4 * 8)
        assert event.compute_seconds >= 0
        assert event.link_seconds >= 0
        result = pool.take(assign.token)
        assert result.compute_seconds == event.compute_seconds
        same_answer(result, alone(assign))
        pool.acknowledge(assign.token)
        pool.acknowledge(assign.token)
        with pytest.raises(KeyError):
            pool.take(assign.token)
        # What was acknowledged stays good for whoever has it.
        same_answer(result, alone(assign))

    def test_each_piece_is_done_with_its_own_version_and_in_order(self, pool: Pool) -> None:
        first = [work(name, sequence) for sequence, name in enumerate(("north", "south"), 20)]
        for assign in first:
            pool.submit(assign)
        pool.publish(global_model(2))
        second = [work(name, sequence, version=2) for sequence, name in enumerate(("north", "south"), 22)]
        for assign in second:
            pool.submit(assign)
        arrived = [event.token for event in wait_for(pool, Arrived, 4) if isinstance(event, Arrived)]
        for name in ("north", "south"):
            assert [token.sequence for token in arrived if token.worker == name] == [
                assign.token.sequence for assign in first + second if assign.worker == name
            ]
        for assign in first + second:
            same_answer(pool.take(assign.token), alone(assign))
            pool.acknowledge(assign.token)

    def test_an_evaluation_comes_back_as_scores(self, pool: Pool) -> None:
        assign = work("north", 30, amount=2, kind="evaluate")
        pool.submit(assign)
        wait_for(pool, Arrived)
        result = pool.take(assign.token)
        assert result.payload["passes"] == np.array([2.0])
        same_answer(result, alone(assign))

    @pytest.mark.parametrize(
        ("amount", "reason"),
        [
            (BREAKS, "ArithmeticError: the sum came out wrong"),
            (GROWS, "ValueError: north answered with weight of shape (4,): the global model's is (3,)"),
        ],
    )
    def test_a_failure_is_told_and_the_client_goes_on(self, pool: Pool, amount: int, reason: str) -> None:
        bad, good = work("north", 38 + amount, amount=amount), work("north", 80 + amount)
        pool.submit(bad)
        pool.submit(good)
        events = wait_for(pool, Arrived)
        (failed,) = [event for event in events if isinstance(event, Failed)]
        assert (failed.worker, failed.token, failed.reason) == ("north", bad.token, reason)
        same_answer(pool.take(good.token), alone(good))
        with pytest.raises(KeyError):
            pool.take(bad.token)

    def test_unknown_clients_and_versions_are_refused(self, pool: Pool) -> None:
        for name in ("west", "empty"):
            with pytest.raises(ValueError, match=f"worker is '{name}': the pool has north, south"):
                pool.submit(work(name, 50))
        with pytest.raises(ValueError, match="version is 3: the newest published version is 1"):
            pool.submit(work("north", 51, version=3))

    def test_a_pool_whose_every_client_is_left_out_is_exhausted(self) -> None:
        pool = self.make(["empty"])
        try:
            wait_for(pool, Left)
            with pytest.raises(PoolExhausted, match=r"empty .*ValueError: empty has no data"):
                wait_for(pool, Joined)
        finally:
            pool.close()

    def test_it_can_be_closed_twice(self) -> None:
        pool = self.make(["north"])
        wait_for(pool, Joined)
        pool.publish(global_model(1))
        pool.submit(work("north", 0))
        pool.close()
        pool.close()
        assert pool.events(0.0) == []
        with pytest.raises(ValueError, match="worker is 'north'"):
            pool.submit(work("north", 1))
