"""What every scheduler is put through: a world of workers in which anything may happen in any order.

A test module subclasses `SchedulerMachine`, says how its scheduler is made, and runs ``TheMachine.TestCase``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isogon.schedulers.events import (
    Arrived,
    Assign,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Joined,
    Left,
    Published,
    Scheduler,
    Tick,
    Token,
    WakeAt,
)

WORKERS = [f"env-{index}" for index in range(4)]
MOST_SURPLUS = 5
"""Steps that a worker may play beyond its piece."""


def arrived(assign: Assign, time: float = 0.0, amount: int | None = None) -> Arrived:
    """The arrival of this piece, done as asked."""
    done = assign.amount if amount is None else amount
    return Arrived(time, assign.worker, assign.token, assign.version, done, done, 8 * done, 0.5, 0.1)


class SchedulerMachine(RuleBasedStateMachine):
    """Plays the run around a scheduler, and keeps its own books of every token."""

    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

    def __init__(self) -> None:
        super().__init__()
        self.attempt = 1
        self.scheduler = self.make_scheduler(self.attempt)
        self.time = 0.0
        self.version = 0
        self.published = False
        self.alive: list[str] = []
        self.open: dict[Token, Assign] = {}
        self.committed: set[Token] = set()
        self.dropped: set[Token] = set()
        self.highest = -1
        self.steps_demanded = 0
        self.steps_done = 0
        self.evaluations_demanded: list[int] = []
        self.evaluations_done: list[int] = []

    def make_scheduler(self, attempt: int) -> Scheduler:
        raise NotImplementedError

    def tell(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event)
        for command in commands:
            match command:
                case Assign():
                    self.assigned(command)
                case Commit():
                    assert command.entries
                    for token, weight in command.entries:
                        self.ended(token)
                        self.committed.add(token)
                        assert weight > 0
                case Drop():
                    if token_was_open := command.token in self.open:
                        self.ended(command.token)
                        self.dropped.add(command.token)
                    assert token_was_open or isinstance(event, Arrived)
                case WakeAt():
                    assert command.time >= self.time
        return commands

    def assigned(self, assign: Assign) -> None:
        assert assign.worker in self.alive
        assert assign.token.worker == assign.worker
        assert assign.token.attempt == self.attempt
        assert assign.token.sequence > self.highest
        assert assign.version == self.version
        assert self.published
        assert assign.amount >= 1
        self.highest = assign.token.sequence
        self.open[assign.token] = assign

    def ended(self, token: Token) -> None:
        assert token in self.open
        assert token not in self.committed | self.dropped
        del self.open[token]

    def now(self) -> float:
        self.time += 0.25
        return self.time

    @rule(worker=st.sampled_from(WORKERS))
    def join(self, worker: str) -> None:
        if worker not in self.alive:
            self.alive.append(worker)
            self.tell(Joined(self.now(), worker))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.alive))
        self.alive.remove(worker)
        self.tell(Left(self.now(), worker, "killed"))
        assert not [token for token in self.open if token.worker == worker]

    @rule()
    def publish(self) -> None:
        self.version += 1
        self.published = True
        self.tell(Published(self.now(), self.version))

    @rule(amount=st.integers(1, 50))
    def demand_rollout(self, amount: int) -> None:
        self.steps_demanded += amount
        self.tell(Demand(self.now(), amount))

    @rule(amount=st.integers(1, 50))
    def demand_evaluation(self, amount: int) -> None:
        self.evaluations_demanded.append(amount)
        self.tell(Demand(self.now(), amount, "evaluate"))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), surplus=st.integers(0, MOST_SURPLUS))
    def arrive(self, data: st.DataObject, surplus: int) -> None:
        assign = data.draw(st.sampled_from(list(self.open.values())))
        if assign.kind == "rollout":
            self.steps_done += assign.amount + surplus
            self.tell(arrived(assign, self.now(), assign.amount + surplus))
        else:
            self.evaluations_done.append(assign.amount)
            self.tell(arrived(assign, self.now()))

    @precondition(lambda self: self.committed or self.dropped)
    @rule(data=st.data())
    def arrive_late(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.committed | self.dropped)))
        late = Arrived(self.now(), token.worker, token, 1, 5, 5, 40, 0.5, 0.1)
        commands = self.tell(late)
        assert Drop(token, commands[0].reason if isinstance(commands[0], Drop) else "") in commands
        assert not any(isinstance(command, Commit) for command in commands)

    @rule()
    def tick(self) -> None:
        self.tell(Tick(self.now()))

    @rule()
    def resume_in_a_new_attempt(self) -> None:
        state: Mapping[str, Any] = json.loads(json.dumps(self.scheduler.state_dict()))
        self.attempt += 1
        self.scheduler = self.make_scheduler(self.attempt)
        self.scheduler.load_state_dict(state)
        self.alive = []
        self.published = False
        self.dropped |= set(self.open)
        self.open = {}

    @invariant()
    def the_state_is_sound(self) -> None:
        self.scheduler.check_valid()
        state = self.scheduler.state_dict()
        assert json.loads(json.dumps(state)) == state

    def teardown(self) -> None:
        """Given workers and time, everything that was demanded gets done, and nothing is done for nobody."""
        self.join("env-0")
        self.publish()
        for _ in range(10_000):
            if not self.open:
                break
            assign = next(iter(self.open.values()))
            if assign.kind == "rollout":
                self.steps_done += assign.amount
            else:
                self.evaluations_done.append(assign.amount)
            self.tell(arrived(assign, self.now()))
        assert not self.open
        assert self.steps_done >= self.steps_demanded
        assert sorted(self.evaluations_done) == sorted(self.evaluations_demanded)
