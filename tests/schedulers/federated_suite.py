"""What every scheduler of federated clients is put through: a world of clients in which anything may happen.

A test module subclasses `FederatedMachine`, says how its scheduler is made, and runs ``TheMachine.TestCase``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from isogon.schedulers.events import (
    Arrived,
    Assign,
    Closing,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Failed,
    Joined,
    Left,
    Published,
    Tick,
    Token,
    WakeAt,
)
from isogon.schedulers.federated import FederatedScheduler

CLIENTS = [f"silo-{index}" for index in range(5)]
STEPS = st.sampled_from([0.0, 0.0, 0.25, 1.0, 7.0, 40.0, 500.0])
"""Seconds between two events; several may come at one time."""


def answer(assign: Assign, time: float, amount: int | None = None) -> Arrived:
    """The arrival of this piece, done as asked if nothing else is said."""
    done = assign.amount if amount is None else amount
    return Arrived(time, assign.worker, assign.token, assign.version, done, 10, 8, 0.5 * done, 0.1)


class FederatedMachine(RuleBasedStateMachine):
    """Plays clients, server and pool around a scheduler, and keeps its own books of every token.

    Attributes:
        least, most: local steps that an assignment may have.
        everybody_works: whether each client that is there and answers must get work again and again. Where the policy
            picks some and leaves others out, only somebody must.
    """

    settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
    least: ClassVar[int] = 1
    most: ClassVar[float] = math.inf
    everybody_works: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.attempt = 1
        self.scheduler = self.make_scheduler(self.attempt)
        self.time = 0.0
        self.version = 0
        self.published = False
        self.closed = False
        self.crash_at_commit = False
        self.alive: list[str] = []
        self.in_hand: dict[Token, Assign] = {}
        self.waiting: dict[Token, Assign] = {}
        self.ended: set[Token] = set()
        self.highest = -1
        self.wake = math.inf
        self.trainings: Counter[str] = Counter()
        self.evaluations: set[Token] = set()

    def make_scheduler(self, attempt: int) -> FederatedScheduler:
        raise NotImplementedError

    def check_training(self, assign: Assign) -> None:
        """What else holds of an assignment to train."""

    # The server around the scheduler.

    def tell(self, event: Event) -> list[Command]:
        """Tell one event, and the version that comes of a commit, and so on; all the commands."""
        commands = self.tell_alone(event)
        if self.trains(commands):
            self.version += 1
            if self.crash_at_commit:
                self.crash_at_commit = False
                self.restart()
            commands = commands + self.tell(Published(self.time, self.version))
        return commands

    def tell_alone(self, event: Event) -> list[Command]:
        commands = self.scheduler.handle(event)
        assert self.trains(commands) <= 1, "two commits of training for one event"
        for command in commands:
            match command:
                case Assign():
                    self.assigned(command)
                case Commit():
                    self.committed(command)
                case Drop():
                    known = command.token in self.in_hand or command.token in self.waiting
                    assert known or (isinstance(event, Arrived) and event.token == command.token)
                    assert command.reason
                    if known:
                        self.end(command.token)
                case WakeAt():
                    assert command.time >= self.time
                    self.wake = min(self.wake, command.time)
        return commands

    def trains(self, commands: list[Command]) -> int:
        """How many of these are commits of training."""
        commits = [command for command in commands if isinstance(command, Commit)]
        return sum(command.entries[0][0] not in self.evaluations for command in commits)

    def assigned(self, assign: Assign) -> None:
        assert self.published
        assert not self.closed
        assert assign.worker in self.alive
        assert assign.token.worker == assign.worker
        assert assign.token.attempt == self.attempt
        assert assign.token.sequence > self.highest
        assert assign.version == self.version
        self.highest = assign.token.sequence
        if assign.kind == "train":
            assert not any(a.kind == "train" and a.worker == assign.worker for a in self.in_hand.values())
            assert self.least <= assign.amount <= self.most
            assert 0 < assign.rate_scale < math.inf
            self.trainings[assign.worker] += 1
            self.check_training(assign)
        else:
            assert assign.kind == "evaluate"
            self.evaluations.add(assign.token)
        self.in_hand[assign.token] = assign

    def committed(self, commit: Commit) -> None:
        assert commit.entries
        tokens = [token for token, _ in commit.entries]
        assert tokens == sorted(tokens, key=lambda token: token.sequence), "sums hang on the order of arrival"
        for token, weight in commit.entries:
            assert token in self.waiting, f"{token} is committed and has not arrived, or has ended"
            assert self.waiting[token].version <= self.version
            assert 0 < weight < math.inf
            self.end(token)

    def end(self, token: Token) -> None:
        assert token not in self.ended
        self.ended.add(token)
        self.in_hand.pop(token, None)
        self.waiting.pop(token, None)

    def arrive(self, assign: Assign, amount: int | None = None) -> list[Command]:
        self.waiting[assign.token] = self.in_hand.pop(assign.token)
        return self.tell(answer(assign, self.time, amount))

    def restart(self) -> None:
        """A new server takes up the state; nothing is told of clients yet."""
        state = json.loads(json.dumps(self.scheduler.state_dict()))
        self.attempt += 1
        self.scheduler = self.make_scheduler(self.attempt)
        self.scheduler.load_state_dict(state)
        self.scheduler.check_valid()
        self.wake = math.inf

    # What may happen.

    @rule(client=st.sampled_from(CLIENTS), samples=st.integers(1, 50), step=STEPS)
    def a_client_joins(self, client: str, samples: int, step: float) -> None:
        """One that is there already begins anew."""
        self.time += step
        if client not in self.alive:
            self.alive.append(client)
        lost = [token for token in self.in_hand if token.worker == client]
        self.tell(Joined(self.time, client, samples))
        assert self.ended.issuperset(lost)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), step=STEPS)
    def a_client_leaves(self, data: st.DataObject, step: float) -> None:
        self.time += step
        client = data.draw(st.sampled_from(self.alive))
        self.alive.remove(client)
        self.tell(Left(self.time, client, "killed"))
        assert not [token for token in self.in_hand if token.worker == client]

    @precondition(lambda self: not self.published)
    @rule(step=STEPS)
    def the_first_version_is_there(self, step: float) -> None:
        self.time += step
        self.publish()

    def publish(self) -> None:
        self.version = max(self.version, 1)
        self.published = True
        self.tell(Published(self.time, self.version))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), step=STEPS, whole=st.booleans())
    def an_answer_arrives(self, data: st.DataObject, step: float, whole: bool) -> None:
        self.time += step
        assign = data.draw(st.sampled_from(list(self.in_hand.values())))
        self.arrive(assign, assign.amount if whole else max(1, assign.amount // 2))

    @precondition(lambda self: self.in_hand)
    @rule(data=st.data(), step=STEPS)
    def a_piece_fails(self, data: st.DataObject, step: float) -> None:
        self.time += step
        assign = data.draw(st.sampled_from(list(self.in_hand.values())))
        self.tell(Failed(self.time, assign.worker, assign.token, "the loss is not finite"))
        assert assign.token in self.ended

    @precondition(lambda self: self.ended or self.waiting)
    @rule(data=st.data(), step=STEPS)
    def an_answer_comes_a_second_time(self, data: st.DataObject, step: float) -> None:
        self.time_passes(step)
        token = data.draw(st.sampled_from(sorted(self.ended | set(self.waiting))))
        before = set(self.waiting)
        self.tell_alone(Arrived(self.time, token.worker, token, 1, 5, 10, 8, 0.5, 0.1))
        assert before == set(self.waiting), "what is applied or waits is touched by its copy"

    @rule(client=st.sampled_from([*CLIENTS, "stranger"]), step=STEPS)
    def a_stranger_speaks(self, client: str, step: float) -> None:
        self.time_passes(step)
        token = Token(self.attempt + 1, client, self.highest + 1)
        commands = self.tell_alone(Arrived(self.time, client, token, 1, 5, 10, 8, 0.5, 0.1))
        assert token in [command.token for command in commands if isinstance(command, Drop)]
        self.tell_alone(Failed(self.time, client, token, "whatever"))
        self.tell_alone(Left(self.time, "stranger"))

    @precondition(lambda self: self.published)
    @rule(amount=st.integers(1, 3), step=STEPS)
    def an_evaluation_is_wanted(self, amount: int, step: float) -> None:
        self.time += step
        self.tell(Demand(self.time, amount, "evaluate"))

    @rule(step=STEPS)
    def time_passes(self, step: float) -> None:
        self.time += step
        self.tick()

    @precondition(lambda self: self.wake < math.inf)
    @rule()
    def it_is_woken(self) -> None:
        self.time = max(self.time, self.wake)
        self.tick()

    def tick(self) -> None:
        if self.wake <= self.time:
            self.wake = math.inf
        self.tell(Tick(self.time))

    @rule()
    def the_server_will_crash_at_the_next_commit(self) -> None:
        """Between a commit and the version that comes of it; the clients go on."""
        self.crash_at_commit = True

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def the_server_restarts(self, data: st.DataObject) -> None:
        """Some results are in the spool, some clients are gone, some begin anew, of some nothing is heard yet."""
        self.restart()
        self.published = False
        early = data.draw(st.booleans())
        if not early:
            self.publish()
        for assign in list(self.in_hand.values()):
            if assign.token in self.in_hand and data.draw(st.booleans()):
                self.arrive(assign)
        for client in list(self.alive):
            fate = data.draw(st.sampled_from(["stays", "left", "anew"]))
            if fate == "left":
                self.alive.remove(client)
                self.tell(Left(self.time, client, "the server began anew"))
            elif fate == "anew":
                self.tell(Joined(self.time, client, 10))
        if early:
            self.publish()

    @invariant()
    def the_state_is_sound(self) -> None:
        self.scheduler.check_valid()
        state: dict[str, Any] = self.scheduler.state_dict()
        assert json.loads(json.dumps(state)) == state
        known = {token for client in self.scheduler.clients.values() for token in client.pieces}
        assert known == set(self.in_hand), "what is in hand is not what was handed out and has not ended"
        assert set(self.scheduler.waiting) == set(self.waiting)

    def teardown(self) -> None:
        """Where all answer, nobody idles for ever; and where the run closes, every piece ends."""
        if not self.published:
            self.publish()
        if not self.alive:
            self.a_client_joins(CLIENTS[0], 10, 0.0)
        self.answer_all(60)
        for client in self.alive:
            if self.scheduler.clients[client].silent:
                self.tell(Joined(self.time, client, 10))
        self.answer_all(60)
        self.trainings.clear()
        self.answer_all(60)
        idle = [client for client in self.alive if not self.trainings[client]]
        assert not idle or (self.trainings and not self.everybody_works), f"{idle} idle for ever"
        self.time += 1.0
        self.tell(Closing(self.time))
        self.closed = True
        assert not self.in_hand | self.waiting, "the run has ended and a piece has not"
        self.tell(Joined(self.time, CLIENTS[0], 10))
        self.tell(Tick(self.time + 1e6))

    def answer_all(self, times: int) -> None:
        """Everybody answers at once, so often; where nothing is in hand, time passes."""
        for _ in range(times):
            if assign := min(self.in_hand.values(), key=lambda a: a.token.sequence, default=None):
                self.time += 0.25
                self.arrive(assign)
            else:
                self.time = self.wake if self.time < self.wake < math.inf else self.time + 10.0
                self.tick()
