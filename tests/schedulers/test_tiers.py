from __future__ import annotations

import json
import math
from typing import Any

import pytest

from isogon.schedulers.events import Commit, Joined, Left, Published
from isogon.schedulers.rounds import Rounds
from isogon.schedulers.tiers import FedAT, tier_weights

from .virtual_clients import VirtualClients

SPEEDS = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 2.0}
SAMPLES = {"a": 10, "b": 30, "c": 20, "d": 20}


def tiers_of(scheduler: FedAT) -> list[list[str]]:
    return [sorted(tier["members"]) for tier in scheduler.extra_state()["tiers"]]


def test_rarely_updated_tiers_count_more() -> None:
    assert tier_weights([6, 3, 1]) == [0.1, 0.3, 0.6]


def test_tiers_run_rounds_of_their_own() -> None:
    scheduler = FedAT(1, steps=10, tiers=2)
    world = VirtualClients(scheduler, SPEEDS, SAMPLES).run(40.0)
    assert tiers_of(scheduler) == [["a", "b"], ["c", "d"]]
    profile, fast, slow, fast_again = world.commits
    assert profile == (20.0, [("a", 0.125, 0), ("b", 0.375, 0), ("c", 0.25, 0), ("d", 0.25, 0)])
    # Updates are 2 and 1: the fast tier counts a third.
    assert fast == (30.0, [("a", pytest.approx(0.25 / 3), 0), ("b", pytest.approx(0.75 / 3), 0)])
    # Updates are 2 and 2.
    assert slow == (40.0, [("c", 0.25, 1), ("d", 0.25, 1)])
    # Updates are 3 and 2.
    assert fast_again == (40.0, [("a", pytest.approx(0.25 * 0.4), 1), ("b", pytest.approx(0.75 * 0.4), 1)])
    assert [given.worker for given in world.given if given.time == 30.0] == ["a", "b"]


def test_one_tier_is_fedavg() -> None:
    fedat, fedavg = (
        VirtualClients(scheduler, SPEEDS, SAMPLES).run(100.0)
        for scheduler in (FedAT(1, steps=10, tiers=1), Rounds(1, steps=10))
    )
    assert fedat.commits == fedavg.commits
    assert len(fedat.commits) == 5


def test_who_comes_after_the_deadline_of_the_first_round_is_in_the_slowest_tier() -> None:
    scheduler = FedAT(1, steps=10, tiers=2, profile_seconds=25.0)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0, "c": 6.0}).run(61.0)
    assert world.commits[0] == (25.0, [("a", 0.5, 0), ("b", 0.5, 0)])
    assert world.drops == [(60.0, "c", "late: its round ended without it")]
    assert tiers_of(scheduler) == [["a"], ["b", "c"]]


def test_a_newcomer_is_measured_in_the_slowest_tier_and_then_goes_where_it_belongs() -> None:
    scheduler = FedAT(1, steps=10, tiers=2)
    world = VirtualClients(scheduler, SPEEDS)
    world.seconds["new"] = 0.5
    world.at(Joined(25.0, "new", 10))
    world.run(39.0)
    assert tiers_of(scheduler) == [["a", "b"], ["c", "d", "new"]]
    world.run(61.0)
    assert ("new", 10) in world.given_at(40.0)
    assert tiers_of(scheduler) == [["a", "b", "new"], ["c", "d"]]


def test_tiers_are_made_anew_after_some_rounds_of_the_slowest() -> None:
    scheduler = FedAT(1, steps=10, tiers=2, retier_rounds=2)
    world = VirtualClients(scheduler, dict(SPEEDS)).run(21.0)
    world.seconds |= {"a": 3.0, "c": 1.0}
    world.run(45.0)
    assert tiers_of(scheduler) == [["a", "b"], ["c", "d"]]
    world.run(61.0)
    assert tiers_of(scheduler) == [["b", "c"], ["a", "d"]]
    assert [tier["updates"] for tier in scheduler.extra_state()["tiers"]] == [3, 3]


def test_a_tier_whose_clients_are_all_gone_is_no_tier() -> None:
    scheduler = FedAT(1, steps=10, tiers=2)
    world = VirtualClients(scheduler, SPEEDS | {"c": math.inf, "d": math.inf})
    world.seconds |= {"c": 2.0, "d": 2.0}
    world.at(Left(22.0, "c"))
    world.at(Left(23.0, "d"))
    world.run(30.0)
    assert tiers_of(scheduler) == [["a"], ["b"]]
    # The round of a and b, in which they were one tier, goes on; each updates the model by half then.
    assert world.commits[1] == (30.0, [("a", pytest.approx(0.5 * 2 / 3 / 2), 0), ("b", pytest.approx(0.5 / 3), 0)])


def test_a_tier_draws_its_clients() -> None:
    scheduler = FedAT(1, steps=10, tiers=2, clients_per_round=1)
    world = VirtualClients(scheduler, SPEEDS).run(500.0)
    assert len(world.commits[0][1]) == 4
    assert all(len(entries) == 1 for _, entries in world.commits[1:])
    assert {entries[0][0] for _, entries in world.commits[1:]} == set("abcd")


def test_a_new_attempt_takes_the_tiers_up() -> None:
    world = VirtualClients(FedAT(1, steps=10, tiers=2), SPEEDS, SAMPLES).run(25.0)
    resumed = FedAT(2, steps=10, tiers=2)
    resumed.load_state_dict(json.loads(json.dumps(world.scheduler.state_dict())))
    assert not [
        c for name in "abcd" for c in resumed.handle(Joined(25.0, name, SAMPLES[name])) if isinstance(c, Commit)
    ]
    given = resumed.handle(Published(25.0, 2))
    assert [str(command.token) for command in given] == [  # type: ignore[union-attr]
        "2/a/8",
        "2/b/9",
        "2/c/10",
        "2/d/11",
    ]
    resumed.check_valid()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tiers": 0}, "tiers is 0"),
        ({"retier_rounds": 0}, "retier_rounds is 0"),
        ({"profile_seconds": -1.0}, "profile_seconds is -1.0"),
        ({"share": "one"}, "share is 'one'"),
    ],
)
def test_what_it_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FedAT(1, **settings)
