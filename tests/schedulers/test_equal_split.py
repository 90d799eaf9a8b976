from __future__ import annotations

import json
from typing import Any

import pytest

from isogon.schedulers import EqualSplit
from isogon.schedulers.events import Arrived, Assign, Command, Commit, Demand, Drop, Joined, Left, Published, Token

from .scheduler_suite import MOST_SURPLUS, WORKERS, SchedulerMachine, arrived


class EqualSplitMachine(SchedulerMachine):
    piece = 7
    in_flight = 2

    def make_scheduler(self, attempt: int) -> EqualSplit:
        return EqualSplit(attempt, self.piece, self.in_flight)

    def assigned(self, assign: Assign) -> None:
        super().assigned(assign)
        loads = {worker: 0 for worker in self.alive}
        for token in self.open:
            loads[token.worker] += 1
        rollouts = [token for token, piece in self.open.items() if piece.kind == "rollout"]
        free = [w for w in self.alive if sum(token.worker == w for token in rollouts) < self.in_flight]
        if assign.kind == "rollout":
            assert assign.amount == self.piece
            assert sum(token.worker == assign.worker for token in rollouts) <= self.in_flight
        else:
            free = self.alive
        assert all(loads[assign.worker] - 1 <= loads[worker] for worker in free)

    def teardown(self) -> None:
        super().teardown()
        most_in_hand = self.in_flight * len(WORKERS)
        assert self.steps_done - self.steps_demanded < self.piece + MOST_SURPLUS * most_in_hand


TestAnyOrder = EqualSplitMachine.TestCase


def started(workers: int = 2, **settings: int) -> EqualSplit:
    scheduler = EqualSplit(1, **{"piece": 10, **settings})
    for index in range(workers):
        assert scheduler.handle(Joined(0.0, f"env-{index}")) == []
    assert scheduler.handle(Published(0.0, 1)) == []
    return scheduler


def assigns(commands: list[Command]) -> list[Assign]:
    return [command for command in commands if isinstance(command, Assign)]


def test_a_hand_traced_run() -> None:
    scheduler = EqualSplit(3, piece=10, in_flight=1)
    assert scheduler.handle(Demand(0.0, 25)) == []
    assert scheduler.handle(Joined(0.0, "env-0")) == []
    first = scheduler.handle(Published(0.0, 1))
    assert first == [Assign("env-0", Token(3, "env-0", 0), "rollout", 10, 1)]
    second = scheduler.handle(Joined(1.0, "env-1"))
    assert second == [Assign("env-1", Token(3, "env-1", 1), "rollout", 10, 1)]
    assert scheduler.handle(Published(1.5, 2)) == []
    third = scheduler.handle(arrived(assigns(second)[0], 2.0))
    assert third == [
        Commit(((Token(3, "env-1", 1), 1.0),)),
        Assign("env-1", Token(3, "env-1", 2), "rollout", 10, 2),
    ]
    assert scheduler.handle(arrived(assigns(first)[0], 3.0)) == [Commit(((Token(3, "env-0", 0), 1.0),))]
    # Thirty steps were handed out for 25: the next five are there already.
    assert scheduler.handle(Demand(3.0, 5)) == []
    assert len(assigns(scheduler.handle(Demand(3.0, 1)))) == 1


def test_pieces_are_equal_and_workers_take_turns_by_load() -> None:
    scheduler = started(workers=3, in_flight=2)
    handed = assigns(scheduler.handle(Demand(1.0, 1000)))
    assert [assign.worker for assign in handed] == ["env-0", "env-1", "env-2"] * 2
    assert {assign.amount for assign in handed} == {10}


def test_steps_beyond_the_piece_are_credit() -> None:
    scheduler = started(workers=1)
    (assign,) = assigns(scheduler.handle(Demand(1.0, 20)))
    (commit,) = scheduler.handle(arrived(assign, 2.0, amount=20))
    assert isinstance(commit, Commit)
    scheduler.check_valid()


def test_an_evaluation_goes_first_and_beside_rollouts() -> None:
    scheduler = EqualSplit(1, piece=10, in_flight=1)
    scheduler.handle(Demand(0.0, 20))
    scheduler.handle(Demand(0.0, 115, "evaluate"))
    scheduler.handle(Published(0.0, 1))
    handed = assigns(scheduler.handle(Joined(0.0, "env-0")))
    assert [(assign.kind, assign.amount) for assign in handed] == [("evaluate", 115), ("rollout", 10)]
    (second,) = assigns(scheduler.handle(Joined(0.0, "env-1")))
    assert (second.worker, second.kind) == ("env-1", "rollout")
    (third,) = assigns(scheduler.handle(Demand(1.0, 3, "evaluate")))
    assert (third.worker, third.amount) == ("env-1", 3)


def test_lost_work_is_given_out_again_under_new_tokens() -> None:
    scheduler = started(workers=2)
    rollout = assigns(scheduler.handle(Demand(1.0, 10)))[0]
    evaluation = assigns(scheduler.handle(Demand(1.0, 5, "evaluate")))[0]
    assert (rollout.worker, evaluation.worker) == ("env-0", "env-1")
    commands = scheduler.handle(Left(2.0, "env-0", "killed"))
    assert commands[0] == Drop(rollout.token, "worker left: killed")
    assert commands[1:] == [Assign("env-1", Token(1, "env-1", 2), "rollout", 10, 1)]
    drops = scheduler.handle(Left(3.0, "env-1"))
    assert {drop.token for drop in drops if isinstance(drop, Drop)} == {evaluation.token, Token(1, "env-1", 2)}
    again = assigns(scheduler.handle(Joined(4.0, "env-1")))
    assert [(assign.kind, assign.token.sequence) for assign in again] == [("evaluate", 3), ("rollout", 4)]
    late = scheduler.handle(arrived(rollout, 5.0))
    assert [type(command) for command in late] == [Drop]


def test_a_worker_that_joins_twice_has_lost_what_it_had() -> None:
    scheduler = started(workers=1)
    (assign,) = assigns(scheduler.handle(Demand(1.0, 10)))
    commands = scheduler.handle(Joined(2.0, "env-0"))
    assert commands[0] == Drop(assign.token, "worker began anew")
    assert assigns(commands)[0].token == Token(1, "env-0", 1)
    assert scheduler.handle(Left(3.0, "stranger")) == []


def test_a_new_attempt_takes_up_the_state() -> None:
    scheduler = started(workers=2)
    scheduler.handle(Demand(1.0, 45))
    scheduler.handle(Demand(1.0, 7, "evaluate"))
    state = json.loads(json.dumps(scheduler.state_dict()))
    resumed = EqualSplit(2, piece=15)
    resumed.handle(Published(0.0, 5))
    resumed.handle(Joined(0.0, "env-0"))
    resumed.load_state_dict(state)
    resumed.check_valid()
    late = Arrived(0.0, "env-0", Token(1, "env-0", 0), 1, 10, 10, 80, 1.0, 0.0)
    assert [type(command) for command in resumed.handle(late)] == [Drop]
    assert resumed.handle(Joined(0.0, "env-0")) == []
    handed = assigns(resumed.handle(Published(0.0, 1)))
    assert [(assign.kind, assign.amount) for assign in handed] == [("evaluate", 7), ("rollout", 15)]
    assert [assign.token for assign in handed] == [Token(2, "env-0", 3), Token(2, "env-0", 4)]
    total = 15
    while handed:
        rollout = next(assign for assign in handed if assign.kind == "rollout")
        handed = assigns(resumed.handle(arrived(rollout)))
        total += sum(assign.amount for assign in handed)
    assert total == 45


@pytest.mark.parametrize("name", ["attempt", "piece", "in_flight"])
def test_settings_must_be_positive(name: str) -> None:
    settings: dict[str, Any] = {"attempt": 1, "piece": 1, "in_flight": 1, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        EqualSplit(**settings)


def test_what_it_refuses() -> None:
    scheduler = started()
    with pytest.raises(ValueError, match="version is 1"):
        scheduler.handle(Published(1.0, 1))
    with pytest.raises(ValueError, match="demand is for 0"):
        scheduler.handle(Demand(1.0, 0))
    with pytest.raises(ValueError, match="'train'"):
        scheduler.handle(Demand(1.0, 5, "train"))
    with pytest.raises(ValueError, match="attempt is 1"):
        EqualSplit(1, 10).load_state_dict(scheduler.state_dict())
    with pytest.raises(ValueError, match="'compass'"):
        EqualSplit(2, 10).load_state_dict({"scheduler": "compass"})
