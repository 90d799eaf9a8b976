from __future__ import annotations

import json
from typing import ClassVar

import pytest

from isogon.schedulers.events import (
    Arrived,
    Assign,
    Command,
    Commit,
    Demand,
    Drop,
    Failed,
    Joined,
    Left,
    Published,
    Tick,
)
from isogon.schedulers.federated import Client, FederatedScheduler, Piece, Result, Silence

from .federated_suite import FederatedMachine, answer


class Greedy(FederatedScheduler):
    """The least policy there is: each result is applied as it comes, and its client goes on."""

    name: ClassVar[str] = "greedy"

    def on_ready(self, client: Client) -> None:
        self.give(client, 5)

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        self.commit([(result, 1.0)])

    def on_published(self) -> None:
        for client in self.free_clients():
            self.give(client, 5)


class Idle(Greedy):
    """Results wait for ever, and a version is no reason to do anything."""

    name: ClassVar[str] = "idle"

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        pass

    def on_published(self) -> None:
        pass


class GreedyMachine(FederatedMachine):
    least = most = 5

    def make_scheduler(self, attempt: int) -> Greedy:
        return Greedy(attempt, silence=Silence(2.0, 20.0))


TestAnyOrder = GreedyMachine.TestCase


def started(scheduler: FederatedScheduler) -> Assign:
    """The first piece of the only client, handed out at 0 s."""
    scheduler.handle(Joined(0.0, "silo", 10))
    (assign,) = assigns(scheduler.handle(Published(0.0, 1)))
    return assign


def assigns(commands: list[Command]) -> list[Assign]:
    return [command for command in commands if isinstance(command, Assign)]


def resumed(scheduler: Greedy) -> Greedy:
    copy = type(scheduler)(scheduler.attempt + 1)
    copy.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    return copy


def test_a_copy_of_what_waits_is_not_heard() -> None:
    scheduler = Idle(1)
    assign = started(scheduler)
    scheduler.handle(answer(assign, 1.0))
    assert scheduler.handle(answer(assign, 2.0)) == []
    assert list(scheduler.waiting) == [assign.token]


def test_who_joined_before_the_first_version_is_ready_after_a_restart_too() -> None:
    scheduler = Idle(1)
    scheduler.handle(Joined(0.0, "silo", 10))
    assert [assign.worker for assign in assigns(resumed(scheduler).handle(Published(1.0, 1)))] == ["silo"]


def test_results_that_arrive_before_the_version_are_told_one_by_one_when_it_is_there() -> None:
    scheduler = Greedy(1)
    for name in ("a", "b"):
        scheduler.handle(Joined(0.0, name, 10))
    pieces = assigns(scheduler.handle(Published(0.0, 1)))
    scheduler = resumed(scheduler)
    for piece in reversed(pieces):
        assert scheduler.handle(answer(piece, 5.0)) == []
    scheduler.handle(Left(5.0, "a"))
    scheduler = resumed(scheduler)
    for version, piece in enumerate(reversed(pieces), start=1):
        commands = scheduler.handle(Published(6.0, version))
        assert [c for c in commands if isinstance(c, Commit)] == [Commit(((piece.token, 1.0),))]
    assert scheduler.clients["b"].speed.step == 1.0


def test_the_version_after_a_restart_is_not_older_than_the_state() -> None:
    scheduler = Greedy(1)
    started(scheduler)
    scheduler.handle(Published(1.0, 7))
    copy = resumed(scheduler)
    with pytest.raises(ValueError, match="version is 6: it must be at least 7"):
        copy.handle(Published(2.0, 6))
    copy.handle(Published(2.0, 7))


def test_training_behind_an_evaluation_begins_when_that_is_answered() -> None:
    scheduler = Greedy(1)
    first = started(scheduler)
    (evaluation,) = assigns(scheduler.handle(Demand(0.0, 1, "evaluate")))
    scheduler.handle(answer(first, 10.0))
    (second,) = assigns(scheduler.handle(Published(10.0, 2)))
    (later,) = assigns(scheduler.handle(Demand(11.0, 1, "evaluate")))
    scheduler.handle(answer(evaluation, 90.0))
    scheduler.handle(answer(second, 100.0))
    scheduler.handle(answer(later, 101.0))
    assert scheduler.clients["silo"].speed.step == pytest.approx(0.1 * 10 / 5 + 0.9 * (100 - 90) / 5)


def test_work_behind_other_work_is_given_up_after_it() -> None:
    scheduler = Greedy(1, silence=Silence(2.0, 20.0))
    first = started(scheduler)
    (evaluation,) = assigns(scheduler.handle(Demand(0.0, 1, "evaluate")))
    assert scheduler.clients["silo"].pieces[first.token].deadline == 40.0
    assert scheduler.clients["silo"].pieces[evaluation.token].deadline == 80.0
    scheduler.handle(answer(first, 39.0))
    assert not any(isinstance(command, Drop) for command in scheduler.handle(Tick(79.0)))
    reasons = [command.reason for command in scheduler.handle(Tick(80.0)) if isinstance(command, Drop)]
    assert reasons == ["given up: no answer from silo for 80 s"]


@pytest.mark.parametrize(("amount", "version"), [(0, 1), (5, 0), (5, 2)])
def test_an_unfit_answer_is_dropped_and_its_client_tries_again(amount: int, version: int) -> None:
    scheduler = Greedy(1)
    token = started(scheduler).token
    drop, again = scheduler.handle(Arrived(1.0, "silo", token, version, amount, 10, 8, 1.0, 0.0))
    assert drop == Drop(token, f"{amount} steps from version {version} came of 5 from 1")
    assert isinstance(again, Assign)


def test_a_client_may_fail_twice_in_a_row_and_not_three_times() -> None:
    scheduler = Greedy(1, most_failures=3)
    assign = started(scheduler)

    def fail() -> list[Assign]:
        return assigns(scheduler.handle(Failed(1.0, "silo", assign.token, "not finite")))

    for _ in range(2):
        (assign,) = fail()
    scheduler.handle(answer(assign, 1.0))
    (assign,) = assigns(scheduler.handle(Published(1.0, 2)))
    for _ in range(2):
        (assign,) = fail()
    assert fail() == []
    assert len(assigns(scheduler.handle(Joined(2.0, "silo", 10)))) == 1


def test_what_it_refuses() -> None:
    scheduler = Greedy(1)
    with pytest.raises(ValueError, match="no version is published"):
        scheduler.handle(Demand(0.0, 1, "evaluate"))
    started(scheduler)
    scheduler.handle(Tick(5.0))
    for event, message in (
        (Tick(4.0), r"time is 4\.0: it must not be below 5\.0"),
        (Tick(float("nan")), "time is nan"),
        (Published(5.0, 1), "version is 1: it must be at least 2"),
        (Joined(5.0, "other", 0), "other joined with 0 samples"),
        (Demand(5.0, 1, "rollout"), "'rollout'"),
    ):
        before = scheduler.state_dict()
        with pytest.raises(ValueError, match=message):
            scheduler.handle(event)
        assert scheduler.state_dict() == before
    with pytest.raises(ValueError, match="attempt is 0: it must be at least 1"):
        Greedy(0)
    with pytest.raises(ValueError, match="most_failures is 0: it must be at least 1"):
        Greedy(1, most_failures=0)
