from __future__ import annotations

import json
import random
from collections import defaultdict

import pytest

from isogon.schedulers import CompassSplit, EqualSplit
from isogon.schedulers.events import Assign, Command, Demand, Joined, Left, Published, Token

from .scheduler_suite import MOST_SURPLUS, WORKERS, SchedulerMachine, arrived
from .virtual_players import Brought, VirtualPlayers

SLOWED = {"env-0": 0.01, "env-1": 0.02, "env-2": 0.04, "env-3": 0.08}
"""Seconds per step: as on machines that are slowed up to eight times."""


class CompassSplitMachine(SchedulerMachine):
    q_min, q_max, in_flight = 6, 40, 2

    def make_scheduler(self, attempt: int) -> CompassSplit:
        return CompassSplit(attempt, self.q_min, self.q_max, quantum=3, in_flight=self.in_flight)

    def assigned(self, assign: Assign) -> None:
        super().assigned(assign)
        if assign.kind == "rollout":
            assert self.q_min <= assign.amount <= self.q_max
            assert assign.amount % 3 == 0
            mine = [piece for piece in self.open.values() if piece.worker == assign.worker and piece.kind == "rollout"]
            assert len(mine) <= self.in_flight

    def teardown(self) -> None:
        super().teardown()
        assert self.steps_done - self.steps_demanded < (self.q_max + MOST_SURPLUS) * self.in_flight * len(WORKERS)


TestAnyOrder = CompassSplitMachine.TestCase


def assigns(commands: list[Command]) -> list[Assign]:
    return [command for command in commands if isinstance(command, Assign)]


def played(
    scheduler: CompassSplit | EqualSplit, seconds: float, *, noise: float = 0.0, quantum: int = 1
) -> list[Brought]:
    rng = random.Random(0)
    times = {
        worker: (lambda now, step=step: step * rng.uniform(1 - noise, 1 + noise)) for worker, step in SLOWED.items()
    }
    return VirtualPlayers(scheduler, times, quantum).play(seconds)


def by_beat(brought: list[Brought], period: float) -> list[list[Brought]]:
    """Rollouts by the multiple of the period that their arrival is nearest to, counted back from the last one."""
    groups: dict[int, list[Brought]] = defaultdict(list)
    for each in brought:
        groups[round((each.time - brought[-1].time) / period)].append(each)
    return [group for _, group in sorted(groups.items())]


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_rollouts_of_unequal_workers_arrive_together(in_flight: int, noise: float) -> None:
    scheduler = CompassSplit(1, 80, 800, in_flight=in_flight)
    brought = [each for each in played(scheduler, 400, noise=noise) if each.time > 100]
    period = 0.95 * 800 * 0.01
    beats = by_beat(brought, period)[1:-1]
    assert len(beats) > 30
    for beat in beats:
        assert sorted(each.worker for each in beat) == WORKERS
        times = [each.time for each in beat]
        assert max(times) - min(times) < 0.1 * period + 2 * noise * period
    amounts = {each.worker: each.amount for each in beats[-1]}
    assert amounts["env-0"] / amounts["env-3"] == pytest.approx(8, rel=0.02 + 2 * noise)


def test_they_bring_as_much_as_workers_that_go_their_own_way_and_no_old_play() -> None:
    """Both give the fastest worker about as long pieces."""
    own_way, together = (
        [each for each in played(scheduler, 1000) if each.time > 100]
        for scheduler in (EqualSplit(1, 800), CompassSplit(1, 80, 800))
    )
    amount_own, amount_together = (sum(each.amount for each in side) for side in (own_way, together))
    assert amount_together > 0.99 * amount_own
    assert max(each.age for each in own_way) >= 63
    assert max(each.age for each in together) <= 8
    mean_own, mean_together = (
        sum(each.age * each.amount for each in side) / sum(each.amount for each in side) for side in (own_way, together)
    )
    assert mean_together < 0.6 * mean_own


def test_amounts_are_multiples_of_what_is_played_at_once() -> None:
    brought = played(CompassSplit(1, 60, 640, quantum=16), 300, quantum=16)
    assert {each.amount % 16 for each in brought} == {0}
    late = by_beat([each for each in brought if each.time > 100], round(0.95 * 640) * 0.01)[1:-1]
    assert all(sorted(each.worker for each in beat) == WORKERS for beat in late)


def test_a_worker_slower_than_the_range_meets_every_second_beat() -> None:
    steps = {"fast": lambda now: 0.01, "slow": lambda now: 0.1}
    brought = VirtualPlayers(CompassSplit(1, 100, 600), steps).play(400)
    amounts = [each.amount for each in brought if each.worker == "slow" and each.time > 50]
    assert amounts
    # 5.7 s a beat: 57 steps of the slow one are too few, so it takes two beats.
    assert set(amounts) <= {113, 114, 115}


def test_a_worker_that_slows_down_is_given_less() -> None:
    steps = {"steady": lambda now: 0.01, "tired": lambda now: 0.01 if now < 100 else 0.04}
    brought = VirtualPlayers(CompassSplit(1, 100, 1000), steps).play(300)
    last = {each.worker: each.amount for each in brought}
    assert last["steady"] / last["tired"] == pytest.approx(4, rel=0.1)


def test_who_is_unknown_is_given_little_and_a_lost_worker_is_unknown_again() -> None:
    scheduler = CompassSplit(1, 10, 100)
    scheduler.handle(Joined(0.0, "env-0"))
    scheduler.handle(Demand(0.0, 10_000))
    (first,) = assigns(scheduler.handle(Published(0.0, 1)))
    assert first.amount == 10
    (second,) = assigns(scheduler.handle(arrived(first, 1.0)))
    assert second.amount > 80
    scheduler.handle(Left(1.5, "env-0", "killed"))
    (anew,) = assigns(scheduler.handle(Joined(2.0, "env-0")))
    assert (anew.amount, anew.token) == (10, Token(1, "env-0", 2))
    scheduler.check_valid()


def test_a_run_goes_on_with_the_other_scheduler() -> None:
    scheduler = CompassSplit(1, 10, 100)
    scheduler.handle(Joined(0.0, "env-0"))
    scheduler.handle(Published(0.0, 1))
    scheduler.handle(Demand(0.0, 35))
    resumed = EqualSplit(2, piece=35)
    resumed.load_state_dict(json.loads(json.dumps(scheduler.state_dict())))
    resumed.handle(Joined(0.0, "env-0"))
    assert [assign.amount for assign in assigns(resumed.handle(Published(0.0, 2)))] == [35]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"q_min": 0}, "q_min is 0 and q_max 100"),
        ({"q_min": 101}, "q_min is 101 and q_max 100"),
        ({"quantum": 0}, "quantum is 0: it must be from 1 to q_max, 100"),
        ({"quantum": 101}, "quantum is 101"),
        ({"in_flight": 0}, "in_flight is 0"),
    ],
)
def test_impossible_numbers_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompassSplit(1, **{"q_min": 10, "q_max": 100, **numbers})
