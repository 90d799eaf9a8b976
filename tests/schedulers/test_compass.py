from __future__ import annotations

import json
import math
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.schedulers import Compass, CompassOptions
from isogon.schedulers.events import (
    Arrived,
    Assign,
    Closing,
    Command,
    Commit,
    Drop,
    Event,
    Failed,
    Joined,
    Left,
    Published,
    Tick,
    Token,
)
from isogon.schedulers.federated import Silence
from isogon.schedulers.speed import SpeedOptions
from isogon.schedulers.staleness import hinge

from .compass_oracle import Oracle
from .federated_suite import FederatedMachine, answer
from .virtual_clock import Applied, Given, StepTime, VirtualClock

Row: TypeAlias = tuple[float, list[tuple[str, int, int]], list[tuple[str, int, int, float, float]]]
"""At which time are applied (client, steps, staleness), and given (client, steps, group, T_a, T_max)."""


class CompassMachine(FederatedMachine):
    options: ClassVar[CompassOptions] = CompassOptions()
    least: ClassVar[int] = 20
    most: ClassVar[float] = 100

    def make_scheduler(self, attempt: int) -> Compass:
        return Compass(attempt, self.options, silence=Silence(3.0, 30.0))


class EveryOptionMachine(CompassMachine):
    options: ClassVar[CompassOptions] = CompassOptions(7, 7, 1.0, weights="equal", step_normalised=True, rearm=True)
    least = most = 7

    def make_scheduler(self, attempt: int) -> Compass:
        return Compass(attempt, self.options, speed=SpeedOptions(separate_link=True, median_of=3))


TestAnyOrder = CompassMachine.TestCase
TestAnyOrderWithEveryOption = EveryOptionMachine.TestCase


def constant_speeds(**seconds: float) -> StepTime:
    return lambda client, _: seconds[client]


def random_speeds(seed: int, clients: int, spread: float, jitter: float) -> StepTime:
    """Log-normal seconds per step, and noise of its own for each client; whatever the order of events."""
    base = np.exp(spread * np.random.default_rng(seed).standard_normal(clients))
    noise = [np.random.default_rng([seed, client]).standard_normal(1000) for client in range(clients)]
    return lambda client, piece: float(base[int(client)] * max(0.05, 1 + jitter * noise[int(client)][piece]))


GOLDEN: list[Row] = [
    (100, [("c0", 100, 0)], [("c0", 100, 0, 200, 220)]),
    (150, [("c1", 100, 1)], [("c1", 33, 0, 200, 220)]),
    (200, [("c0", 100, 1), ("c1", 33, 0)], [("c0", 100, 1, 300, 320), ("c1", 66, 1, 300, 320)]),
    (300, [("c0", 100, 0), ("c1", 66, 0)], [("c0", 100, 2, 400, 420), ("c1", 66, 2, 400, 420)]),
    (400, [("c2", 100, 4)], [("c2", 30, 3, 520, 544)]),
    (400, [("c0", 100, 1), ("c1", 66, 1)], [("c0", 100, 4, 500, 520), ("c1", 80, 3, 520, 544)]),
    (500, [("c0", 100, 0)], [("c0", 20, 3, 520, 544)]),
    (
        520,
        [("c0", 20, 0), ("c1", 80, 1), ("c2", 30, 2)],
        [("c0", 100, 5, 620, 640), ("c1", 66, 5, 620, 640), ("c2", 25, 5, 620, 640)],
    ),
]
for now in (620, 720, 820, 920):
    group = GOLDEN[-1][2][0][2] + 1
    steady = {"c0": 100, "c1": 66, "c2": 25}
    GOLDEN.append(
        (
            now,
            [(client, steps, 0) for client, steps in steady.items()],
            [(client, steps, group, now + 100, now + 120) for client, steps in steady.items()],
        )
    )


class Watched(VirtualClock):
    """Writes down which group each assignment is in."""

    rows: list[Row]

    def tell(self, event: Event) -> list[Command]:
        if not hasattr(self, "rows"):
            self.rows = []
        commands = super().tell(event)
        assert isinstance(self.scheduler, Compass)
        for command in commands:
            if isinstance(command, Assign) and event.time > 0:
                group = next(g for g in self.scheduler.groups.values() if command.worker in g.working)
                row = (command.worker, command.amount, group.number, group.expected, group.latest)
                self.rows[-1][2].append(row)
        return commands

    def apply(self, time: float, commit: Commit) -> None:
        super().apply(time, commit)
        applied = self.trace[-1]
        assert isinstance(applied, Applied)
        self.rows.append((time, [entry[:3] for entry in applied.entries], []))
        weights = {"c0": 0.9 * 10 / 60, "c1": 0.9 * 20 / 60, "c2": 0.9 * 30 / 60}
        for client, _, behind, weight in applied.entries:
            assert weight == pytest.approx(weights[client] / math.sqrt(1 + behind))


def test_the_golden_trace() -> None:
    samples = {"c0": 10, "c1": 20, "c2": 30}
    clock = Watched(Compass(1), samples, constant_speeds(c0=1.0, c1=1.5, c2=4.0))
    assert [given.steps for given in clock.trace if isinstance(given, Given)] == [100, 100, 100]
    while clock.answers[0][0] <= 920:
        clock.step()
    assert clock.rows == GOLDEN


@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 9),
    spread=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    jitter=st.sampled_from([0.0, 0.05, 0.5]),
    factor=st.sampled_from([1.0, 1.2, 1.5]),
    steps=st.sampled_from([(20, 100), (1, 10), (50, 100), (30, 30)]),
)
@settings(max_examples=300, deadline=None)
def test_as_the_slow_oracle(
    seed: int, clients: int, spread: float, jitter: float, factor: float, steps: tuple[int, int]
) -> None:
    samples = {str(client): 10 + 7 * client for client in range(clients)}
    step_time = random_speeds(seed, clients, spread, jitter)
    options = CompassOptions(*steps, factor)
    played = VirtualClock(Compass(1, options), samples, step_time).play(100)
    slow = Oracle(samples, step_time, *steps, factor).play(100)
    for ours, theirs in zip(played, slow, strict=True):
        assert ours == theirs


@given(seed=st.integers(0, 10**6), clients=st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_steady_clients_end_in_one_group(seed: int, clients: int) -> None:
    """With like speeds and no noise: staleness 0, and each does ``floor(q_max * s_min / s_i)``.

    Where the slowest needs more than about four times as long as the fastest, one run in dozens of the algorithm ends
    in a cycle of two groups instead, though q_max / q_min is 5.
    """
    seconds = {str(c): float(s) for c, s in enumerate(np.random.default_rng(seed).uniform(1.0, 3.0, clients))}
    clock = VirtualClock(Compass(1), dict.fromkeys(seconds, 1), lambda client, _: seconds[client])
    clock.play(40 * clients)
    last = [applied for applied in clock.trace if isinstance(applied, Applied)][-1]
    fastest = min(seconds.values())
    assert len(last.entries) == clients
    for client, steps, behind, _ in last.entries:
        assert behind == 0
        assert abs(steps - 100 * fastest / seconds[client]) <= 1


@given(seed=st.integers(0, 10**6), at=st.integers(10, 80), rearm=st.booleans(), new_attempt=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_copy_goes_on_as_the_original_would(seed: int, at: int, rearm: bool, new_attempt: bool) -> None:
    samples = {str(client): 5 + client for client in range(6)}
    options = CompassOptions(latest_time_factor=1.05, rearm=rearm, step_normalised=True)

    def clock(attempt: int) -> VirtualClock:
        return VirtualClock(scheduler(attempt), samples, random_speeds(seed, 6, 1.0, 0.4))

    def scheduler(attempt: int) -> Compass:
        return Compass(attempt, options, speed=SpeedOptions(median_of=3), silence=Silence(3.0, 20.0))

    whole, resumed = clock(1), clock(1)
    resumed.play(at)
    state = json.loads(json.dumps(resumed.scheduler.state_dict()))
    resumed.wake = math.inf
    if new_attempt:
        resumed.scheduler = scheduler(2)
        resumed.scheduler.load_state_dict(state)
        resumed.tell(Published(resumed.scheduler.now, resumed.version))
    else:
        resumed.scheduler = scheduler(1)
        resumed.scheduler.restore(state)
        resumed.tell(Tick(resumed.scheduler.now))
        assert resumed.scheduler.state_dict() == state
    assert resumed.play(150) == whole.play(150)


def two_in_a_group(**options: Any) -> tuple[Compass, Assign, Assign]:
    """At 300 s: 20 steps of the fast client and 60 of the slow one, both expected at 320 s, at 344 s the latest."""
    scheduler = Compass(1, CompassOptions(**options), silence=Silence(10.0, 1000.0))
    clock = VirtualClock(scheduler, {"fast": 10, "slow": 30}, constant_speeds(fast=1.0, slow=2.0))
    clock.play(6)
    (group,) = scheduler.groups.values()
    assert (scheduler.now, group.expected, group.latest) == (300, 320, 344)
    handed = {assign.worker: assign for assign in clock.open.values()}
    assert (handed["fast"].amount, handed["slow"].amount) == (20, 60)
    return scheduler, handed["fast"], handed["slow"]


def applied(commands: list[Command]) -> list[Token]:
    return [token for command in commands if isinstance(command, Commit) for token, _ in command.entries]


def dropped(commands: list[Command]) -> list[Token]:
    return [command.token for command in commands if isinstance(command, Drop)]


@pytest.mark.parametrize("loss", ["left", "failed", "anew"])
def test_nobody_waits_for_a_client_that_is_lost(loss: str) -> None:
    scheduler, fast, slow = two_in_a_group()
    assert scheduler.handle(answer(fast, 319.0)) == []
    events: dict[str, Event] = {
        "left": Left(321.0, "slow", "killed"),
        "failed": Failed(321.0, "slow", slow.token, "not finite"),
        "anew": Joined(321.0, "slow", 30),
    }
    commands = scheduler.handle(events[loss])
    assert (applied(commands), dropped(commands)) == ([fast.token], [slow.token])
    given = [c.worker for c in scheduler.handle(Published(321.0, 9)) if isinstance(c, Assign)]
    assert given == (["fast"] if loss == "left" else ["fast", "slow"])
    scheduler.check_valid()


def test_a_silent_client_is_given_up_and_comes_back() -> None:
    scheduler, fast, slow = two_in_a_group()
    scheduler.handle(answer(fast, 319.0))
    assert applied(scheduler.handle(Tick(345.0))) == [fast.token]
    scheduler.handle(Published(345.0, 9))
    expected = 60 * 2.0
    assert slow.token not in dropped(scheduler.handle(Tick(199.0 + 10 * expected)))
    assert slow.token in dropped(scheduler.handle(Tick(200.0 + 10 * expected)))
    back = scheduler.handle(answer(slow, 1450.0))
    assert dropped(back) == [slow.token]
    assert [command.worker for command in back if isinstance(command, Assign)] == ["slow"]


def test_a_tick_that_comes_late_loses_nothing() -> None:
    """The slow client comes after the latest time and before anybody has told the time."""
    scheduler, fast, slow = two_in_a_group()
    scheduler.handle(answer(fast, 319.0))
    commands = scheduler.handle(answer(slow, 350.0))
    assert applied(commands) == sorted([fast.token, slow.token], key=lambda token: token.sequence)
    given = [command for command in scheduler.handle(Published(350.0, 9)) if isinstance(command, Assign)]
    assert [(assign.worker, assign.version) for assign in given] == [("fast", 9), ("slow", 9)]


@pytest.mark.parametrize("told", [True, False])
def test_a_group_is_armed_again_only_where_nobody_came(told: bool) -> None:
    """Whether anybody has told the time in between or not."""
    scheduler, fast, slow = two_in_a_group(rearm=True)
    scheduler.handle(answer(fast, 319.0))
    assert applied(scheduler.handle(Tick(345.0))) == [fast.token]
    scheduler, fast, slow = two_in_a_group(rearm=True)
    if told:
        assert applied(scheduler.handle(Tick(350.0))) == []
    assert not any(isinstance(command, (Commit, Assign)) for command in scheduler.handle(answer(fast, 400.0)))
    assert len(applied(scheduler.handle(answer(slow, 401.0)))) == 2


def test_a_group_that_is_armed_again_waits_as_long_as_before() -> None:
    """From 200 s to 344 s, and, where nobody came, to 488 s."""
    scheduler, fast, _ = two_in_a_group(rearm=True)
    assert applied(scheduler.handle(Tick(345.0))) == []
    scheduler.handle(answer(fast, 400.0))
    assert applied(scheduler.handle(Tick(488.0))) == []
    assert applied(scheduler.handle(Tick(488.1))) == [fast.token]


def test_at_the_latest_time_a_client_is_on_time() -> None:
    scheduler, fast, slow = two_in_a_group()
    scheduler.handle(answer(fast, 319.0))
    assert applied(scheduler.handle(Tick(344.0))) == []
    assert len(applied(scheduler.handle(answer(slow, 344.0)))) == 2


def test_what_waits_is_applied_when_the_run_closes() -> None:
    scheduler, fast, slow = two_in_a_group()
    scheduler.handle(answer(fast, 319.0))
    commands = scheduler.handle(Closing(320.0))
    assert (applied(commands), dropped(commands)) == ([fast.token], [slow.token])
    assert scheduler.handle(Published(320.0, 9)) == []


def test_one_that_begins_anew_gets_work_with_the_group_in_which_its_result_waits() -> None:
    scheduler, fast, slow = two_in_a_group()
    scheduler.handle(answer(fast, 319.0))
    assert scheduler.handle(Joined(319.5, "fast", 10)) == []
    assert len(applied(scheduler.handle(answer(slow, 320.0)))) == 2
    given = [command.worker for command in scheduler.handle(Published(320.0, 9)) if isinstance(command, Assign)]
    assert given == ["fast", "slow"]


SLOWING: StepTime = lambda _client, piece: [1.0, 2.0, 5.0, 1.0, 1.0][piece]  # noqa: E731


def test_late_updates_are_all_kept_and_applied_with_the_next_group() -> None:
    """A client alone, late twice: at 300 s for a group that waited until 220, at 800 s for one until 528."""
    clock = VirtualClock(Compass(1), {"only": 10}, SLOWING)
    commits = [each for each in clock.play(5) if isinstance(each, Applied)]
    assert [(each.time, len(each.entries)) for each in commits] == [(100, 1), (900, 3)]


@pytest.mark.parametrize("clients", [1, 2])
def test_a_group_that_is_armed_again_is_applied_together(clients: int) -> None:
    samples = {str(client): 10 for client in range(clients)}
    clock = VirtualClock(Compass(1, CompassOptions(rearm=True)), samples, SLOWING)
    commits = [each for each in clock.play(5 * clients) if isinstance(each, Applied)]
    assert [(each.time, len(each.entries)) for each in commits[clients:]] == [(t, clients) for t in (300, 800, 900)]


def test_weights() -> None:
    share = {"fast": 10 / 40, "slow": 30 / 40}
    for options, of in (
        ({}, share),
        ({"weights": "equal"}, {"fast": 0.5, "slow": 0.5}),
        ({"alpha": 0.5, "staleness": hinge(0.5, 0)}, share),
        ({"step_normalised": True}, share),
    ):
        scheduler, fast, slow = two_in_a_group(**options)
        scheduler.handle(answer(fast, 319.0))
        (commit,) = [command for command in scheduler.handle(answer(slow, 320.0)) if isinstance(command, Commit)]
        weights = {token.worker: weight for token, weight in commit.entries}
        behind = {assign.worker: fast.version - assign.version for assign in (fast, slow)}
        assert behind == {"fast": 0, "slow": 2}
        made = scheduler.options
        plain = {name: made.alpha * made.staleness(behind[name]) * of[name] for name in of}
        if made.step_normalised:
            steps = {"fast": 20, "slow": 60}
            reference = sum(plain[name] * steps[name] for name in of) / sum(plain.values())
            plain = {name: plain[name] * reference / steps[name] for name in of}
        assert weights == pytest.approx(plain)


def test_time_on_the_link_is_no_reason_for_fewer_steps() -> None:
    """Two clients of 1 s a step, one of them with 60 s on the link: 100 steps take it 160 s, and not 1.6 s each."""
    scheduler = Compass(1, speed=SpeedOptions(separate_link=True))
    handed: dict[str, Assign] = {}

    def tell(event: Event) -> None:
        handed.update({c.worker: c for c in scheduler.handle(event) if isinstance(c, Assign)})

    for client in ("near", "far"):
        tell(Joined(0.0, client, 10))
    tell(Published(0.0, 1))
    for version, (client, link) in enumerate((("near", 0.0), ("far", 60.0)), start=2):
        token = handed[client].token
        tell(Arrived(100.0 + link, client, token, 1, 100, 10, 8, 100.0, link))
        tell(Published(100.0 + link, version))
    # The near one is expected at 200 s and is back at 320 s, did it begin at its latest time, 220 s.
    assert handed["far"].amount == 100
    near, far = scheduler.groups.values()
    assert (near.expected, far.expected) == (200.0, 320.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q_min": 0}, "q_min is 0"),
        ({"q_min": 30, "q_max": 29}, "q_max is 29: it must be at least q_min, which is 30"),
        ({"latest_time_factor": 0.9}, r"latest_time_factor is 0\.9"),
        ({"latest_time_factor": math.nan}, "latest_time_factor is nan"),
        ({"alpha": 0.0}, r"alpha is 0\.0"),
        ({"alpha": 1.1}, r"alpha is 1\.1"),
        ({"weights": "steps"}, "weights is 'steps'"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompassOptions(**options)
