from __future__ import annotations

import json
import math
from typing import Any

import pytest

from isogon.schedulers.events import Joined, Left, Published
from isogon.schedulers.queue_aware import FedQueue
from isogon.schedulers.speed import SpeedOptions
from isogon.schedulers.staleness import polynomial

from .virtual_clients import Given, VirtualClients


def started(waits: dict[str, list[float]], **settings: Any) -> VirtualClients:
    """Client a: 1 second a step; b: 2. Their waits by piece; the last one stays."""
    scheduler = FedQueue(1, **{"round_seconds": 100.0, "least_steps": 10, **settings})
    remaining = {worker: list(values) for worker, values in waits.items()}

    def wait(assign: Any) -> float:
        values = remaining[assign.worker]
        return values.pop(0) if len(values) > 1 else values[0]

    speeds = {"a": 1.0, "b": 2.0}
    return VirtualClients(scheduler, {worker: speeds[worker] for worker in waits}, {"a": 10, "b": 30}, wait)


def test_work_is_budgeted_by_the_predicted_wait() -> None:
    world = started({"a": [0.0], "b": [20.0]}).run(150.0)
    # Round 1 measures. Then b is predicted to wait 10: 100 - 10 - 10 = 80 seconds; a has 100 - 0 - 10 = 90.
    assert world.given[:2] == [Given(0.0, "a", 10, 1, 1.0), Given(0.0, "b", 10, 1, 1.0)]
    assert world.given[2:4] == [Given(40.0, "a", 90, 2, 40 / 90), Given(40.0, "b", 40, 2, 1.0)]
    # The wait is predicted to be 15 then: 75 seconds, 37 steps.
    assert world.given[4:6] == [Given(140.0, "a", 90, 3, 37 / 90), Given(140.0, "b", 37, 3, 1.0)]
    assert world.commits == [(40.0, [("a", 0.25, 0), ("b", 0.75, 0)]), (140.0, [("a", 0.25, 0), ("b", 0.75, 0)])]
    assert world.scheduler.clients["b"].speed.step == 2.0


def test_who_misses_the_round_s_end_counts_in_the_next_and_does_not_idle() -> None:
    world = started({"a": [0.0], "b": [20.0, 20.0, 80.0, 0.0]}, staleness=polynomial(0.5)).run(345.0)
    # b's 37 steps of round 3 come at 140 + 80 + 74; the round ends at 140 + 115, and the next with a at 255 + 90.
    assert world.commits[2] == (255.0, [("a", 1.0, 0)])
    time, entries = world.commits[3]
    late = 2**-0.5 * 0.75
    assert time == 345.0
    assert entries == [("b", pytest.approx(late / (late + 0.25)), 1), ("a", pytest.approx(0.25 / (late + 0.25)), 0)]
    # b is predicted to wait 47.5; what is left of the round is too short, so it has until 455: 103.5 seconds.
    assert [given for given in world.given if given.time == 294.0] == [Given(294.0, "b", 51, 4, 1.0)]
    # It comes in round 5, in time, from a version that is one old.
    world.run(435.0)
    assert world.commits[4][0] == 435.0
    assert [(worker, staleness) for worker, _, staleness in world.commits[4][1]] == [("b", 1), ("a", 0)]
    assert not world.drops


def test_who_comes_late_into_a_round_with_time_left_takes_part_in_it() -> None:
    world = started({"a": [0.0], "b": [20.0, 20.0, 60.0, 0.0]}, tolerance=0.0).run(360.0)
    # Round 3 ends at 240 with a; b comes at 140 + 60 + 74 = 274, is predicted to wait 37.5, and 18.5 seconds are
    # left of round 4: it has 118.5 until the end of round 5.
    assert (274.0, "b", 59, 4) in [given[:4] for given in world.given]
    world = started({"a": [0.0], "b": [20.0, 20.0, 30.0, 0.0]}, tolerance=0.0).run(330.0)
    # At 244 it is predicted to wait 22.5: 340 - 244 - 22.5 - 10 = 63.5 seconds of round 4 are left.
    assert (244.0, "b", 31, 4) in [given[:4] for given in world.given]
    assert [(worker, staleness) for worker, _, staleness in world.commits[3][1]] == [("b", 1), ("a", 0), ("b", 0)]


def test_who_waited_longer_than_the_cut_off_counts_in_the_next_round() -> None:
    world = started({"a": [0.0], "b": [20.1, 0.0]}).run(140.0)
    assert world.commits[0] == (40.1, [("a", 1.0, 0)])
    assert [(worker, staleness) for worker, _, staleness in world.commits[1][1]] == [("b", 1), ("b", 0), ("a", 0)]
    world = started({"a": [0.0], "b": [20.1, 0.0]}, first_wait=0.2).run(140.0)
    assert world.commits[0] == (40.1, [("a", 0.25, 0), ("b", 0.75, 0)])


def test_where_nobody_was_in_time_the_late_count() -> None:
    world = started({"b": [50.0]}).run(70.0)
    assert world.commits == [(70.0, [("b", 1.0, 0)])]


def test_who_joins_during_a_round_works_for_the_next() -> None:
    world = started({"a": [0.0], "b": [0.0]}).run(25.0)
    world.seconds["new"] = 1.0
    world.wait = lambda assign: 0.0
    world.at(Joined(50.0, "new", 10))
    world.run(110.0)
    assert ("new", 10) in world.given_at(50.0)
    # Round 2 is from 20 to 120. It is back at 60, and has 220 - 60 - 10 seconds until the end of round 3.
    assert world.given_at(60.0) == [("new", 150)]
    assert [worker for worker, _, _ in world.commits[1][1]] == ["a", "b"]


def test_a_dead_client_does_not_hold_a_round_up() -> None:
    world = started({"a": [0.0], "b": [math.inf]})
    world.at(Left(60.0, "b"))
    world.run(60.0)
    assert world.commits == [(60.0, [("a", 1.0, 0)])]
    silent = started({"a": [0.0], "b": [math.inf]}).run(300.0)
    assert [time for time, _ in silent.commits] == pytest.approx([115.0, 205.0, 295.0])


def test_a_new_attempt_goes_on_alike() -> None:
    worlds = [started({"a": [0.0], "b": [20.0, 20.0, 80.0, 0.0]}).run(300.0) for _ in range(2)]
    resumed = FedQueue(2, round_seconds=100.0, least_steps=10)
    resumed.load_state_dict(json.loads(json.dumps(worlds[1].scheduler.state_dict())))
    resumed.handle(Published(300.0, worlds[1].version))
    worlds[1].scheduler = resumed
    for world in worlds:
        world.run(900.0)
    assert worlds[0].commits == worlds[1].commits
    assert worlds[0].given == worlds[1].given


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"round_seconds": 0.0}, "round_seconds is 0.0"),
        ({"least_steps": 0}, "least_steps is 0"),
        ({"most_steps": 19}, "most_steps is 19: it must be at least 20"),
        ({"safety": 1.0}, "safety is 1.0"),
        ({"admission": -0.1}, "admission is -0.1"),
        ({"tolerance": math.inf}, "tolerance is inf"),
        ({"queue_momentum": 0.0}, "queue_momentum is 0.0"),
        ({"speed": SpeedOptions()}, "separate_link off"),
    ],
)
def test_what_it_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FedQueue(1, **{"round_seconds": 100.0, **settings})
