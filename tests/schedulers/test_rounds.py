from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from isogon.schedulers.events import Arrived, Closing, Commit, Drop, Failed, Joined, Left, Published, Token
from isogon.schedulers.federated import Silence
from isogon.schedulers.rounds import Rounds, round_weights, sample, step_normalised

from .virtual_clients import VirtualClients

SPEEDS = {"a": 1.0, "b": 2.0, "c": 3.0}
SAMPLES = {"a": 10, "b": 30, "c": 60}


def test_fedavg_with_everybody_commits_all_with_their_share_of_the_samples() -> None:
    world = VirtualClients(Rounds(1, steps=10), SPEEDS, SAMPLES).run(65.0)
    everybody = [("a", 0.1, 0), ("b", 0.3, 0), ("c", 0.6, 0)]
    assert world.commits == [(30.0, everybody), (60.0, everybody)]
    assert world.given_at(30.0) == [("a", 10), ("b", 10), ("c", 10)]
    assert [given.version for given in world.given] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert not world.drops


def test_equal_weights_where_they_are_wanted() -> None:
    world = VirtualClients(Rounds(1, steps=10, share="equal"), SPEEDS, SAMPLES).run(30.0)
    assert world.commits == [(30.0, [("a", 1 / 3, 0), ("b", 1 / 3, 0), ("c", 1 / 3, 0)])]


def test_at_the_deadline_a_round_goes_without_the_late_who_are_free_for_the_next_one() -> None:
    world = VirtualClients(Rounds(1, steps=10, round_seconds=25.0), SPEEDS, SAMPLES).run(70.0)
    two = [("a", 0.25, 0), ("b", 0.75, 0)]
    assert world.commits == [(25.0, two), (45.0, two), (70.0, two)]
    assert world.given_at(25.0) == [("a", 10), ("b", 10)]
    assert world.given_at(45.0) == [("c", 10), ("a", 10), ("b", 10)]
    ((time, worker, reason),) = world.drops
    assert (time, worker) == (30.0, "c")
    assert reason.startswith("late")


def test_with_too_few_at_the_deadline_a_round_goes_on() -> None:
    scheduler = Rounds(1, steps=10, round_seconds=15.0, least_results=2, least_clients=2)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 4.0, "c": 5.0}).run(45.0)
    assert world.commits == [(40.0, [("a", 0.5, 0), ("b", 0.5, 0)])]


def test_who_leaves_does_not_hold_a_round_up_and_who_joins_takes_part_in_the_next() -> None:
    world = VirtualClients(Rounds(1, steps=10), {"a": 1.0, "b": 2.0, "dead": math.inf})
    world.at(Left(33.0, "dead", "killed"))
    world.seconds["late"] = 1.0
    world.at(Joined(5.0, "late", 20))
    world.run(33.0)
    assert world.commits == [(33.0, [("a", 0.5, 0), ("b", 0.5, 0)])]
    assert world.drops == [(33.0, "dead", "client left: killed")]
    assert world.given_at(33.0) == [("late", 10), ("a", 10), ("b", 10)]


def test_a_silent_client_is_given_up() -> None:
    scheduler = Rounds(1, steps=10, silence=Silence(factor=2.0, least_seconds=25.0))
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0, "dead": math.inf}).run(75.0)
    assert [time for time, _ in world.commits] == [50.0, 70.0]
    assert [(time, worker) for time, worker, _ in world.drops] == [(50.0, "dead")]


def test_a_round_with_too_few_left_comes_to_nothing() -> None:
    scheduler = Rounds(1, steps=10, least_results=2, least_clients=2)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0})
    world.at(Left(15.0, "b"))
    world.at(Joined(40.0, "b", 10))
    world.run(60.0)
    assert world.drops == [
        (15.0, "b", "client left"),
        (15.0, "a", "round came to nothing: 1 of at least 2 results"),
    ]
    assert [time for time, _ in world.commits] == [60.0]


def test_who_failed_takes_part_in_the_next_round() -> None:
    world = VirtualClients(Rounds(1, steps=10), {"a": 1.0, "b": math.inf})
    world.at(Failed(5.0, "b", Token(1, "b", 1), "the loss is not finite"))
    world.run(10.0)
    assert world.commits == [(10.0, [("a", 1.0, 0)])]
    assert world.given_at(10.0) == [("b", 10), ("a", 10)]


def test_a_round_waits_for_enough_clients_to_begin() -> None:
    world = VirtualClients(Rounds(1, steps=10, least_clients=3), {"a": 1.0, "b": 1.0})
    world.seconds["c"] = 1.0
    world.at(Joined(7.0, "c", 10))
    world.run(8.0)
    assert [given[:2] for given in world.given] == [(7.0, "a"), (7.0, "b"), (7.0, "c")]


def test_fednova_weighs_a_step_the_same_whoever_made_it() -> None:
    scheduler = Rounds(1, steps=10, steps_by="samples", normalise_steps=True)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 1.0}, {"a": 10, "b": 30}).run(15.0)
    assert world.given_at(0.0) == [("a", 5), ("b", 15)]
    # tau_eff = 0.25 * 5 + 0.75 * 15 = 12.5
    ((time, entries),) = world.commits
    assert time == 15.0
    assert [weight for _, weight, _ in entries] == pytest.approx([0.25 * 12.5 / 5, 0.75 * 12.5 / 15])


def test_fednova_is_the_normalised_update_of_the_paper() -> None:
    """w - tau_eff * sum p_i d_i, with d_i the mean of the client's steps."""
    generator = np.random.default_rng(0)
    deltas, steps = generator.normal(size=(4, 6)), [3, 1, 10, 4]
    shares = round_weights([5, 1, 7, 2], "samples")
    effective = np.dot(shares, steps)
    expected = effective * sum(p * delta / made for p, delta, made in zip(shares, deltas, steps, strict=True))
    assert np.allclose(step_normalised(shares, steps) @ deltas, expected)
    assert step_normalised(shares, [8] * 4) == pytest.approx(shares)


def test_who_is_drawn_hangs_on_seed_and_round_and_not_on_who_came_first() -> None:
    names = [f"c{index}" for index in range(10)]

    def drawn(seed: int, slow: int) -> list[list[str]]:
        scheduler = Rounds(1, steps=10, clients_per_round=3, seed=seed)
        speeds = {name: 2.0 if index % slow == 0 else 1.0 for index, name in enumerate(names)}
        rounds: dict[float, list[str]] = {}
        for given in VirtualClients(scheduler, speeds).run(500.0).given:
            rounds.setdefault(given.version, []).append(given.worker)
        return list(rounds.values())[:20]

    first = drawn(0, slow=2)
    assert first == drawn(0, slow=3)
    assert first != drawn(1, slow=2)
    assert all(len(set(workers)) == 3 for workers in first)
    counts = Counter(name for number in range(1000) for name in sample(names, 3, 7, number))
    assert all(250 < counts[name] < 350 for name in names)


def test_a_new_attempt_goes_on_with_the_round_that_ran() -> None:
    world = VirtualClients(Rounds(1, steps=10, round_seconds=50.0), SPEEDS, SAMPLES).run(12.0)
    resumed = Rounds(2, steps=10, round_seconds=50.0)
    resumed.load_state_dict(json.loads(json.dumps(world.scheduler.state_dict())))
    resumed.handle(Published(12.0, 1))
    resumed.handle(Arrived(20.0, "b", Token(1, "b", 1), 1, 10, 10, 8, 20.0, 0.0))
    commands = resumed.handle(Left(21.0, "c", "it is not there any more"))
    assert commands[0] == Drop(Token(1, "c", 2), "client left: it is not there any more")
    assert commands[1] == Commit(((Token(1, "a", 0), 0.25), (Token(1, "b", 1), 0.75)))
    resumed.check_valid()
    resumed.handle(Published(21.0, 2))
    assert {token.attempt for client in resumed.clients.values() for token in client.pieces} == {2}


def test_the_run_s_end_drops_the_round_that_it_cuts_short() -> None:
    world = VirtualClients(Rounds(1, steps=10), SPEEDS)
    world.at(Closing(25.0))
    world.run(100.0)
    assert not world.commits
    assert [(time, worker) for time, worker, _ in world.drops] == [(25.0, "c"), (25.0, "a"), (25.0, "b")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"clients_per_round": 0}, "clients_per_round is 0"),
        ({"least_clients": 0}, "least_clients is 0"),
        ({"least_results": 2}, "least_results is 2, and a round may have 1 clients"),
        ({"least_results": 2, "least_clients": 3, "clients_per_round": 1}, "a round may have 1 clients"),
        ({"round_seconds": 0.0}, "round_seconds is 0.0"),
        ({"share": "size"}, "share is 'size'"),
        ({"steps_by": "epochs"}, "steps_by is 'epochs'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_it_refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rounds(1, **settings)
