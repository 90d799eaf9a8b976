from __future__ import annotations

import json
import math
from typing import Any

import pytest

from isogon.schedulers.asynchronous import FedAsync, FedBuff
from isogon.schedulers.events import Arrived, Closing, Commit, Drop, Left, Published, Token
from isogon.schedulers.staleness import constant, hinge, polynomial

from .virtual_clients import VirtualClients


def test_fedasync_with_one_client_mixes_by_alpha() -> None:
    world = VirtualClients(FedAsync(1, steps=10, alpha=0.6, share="one"), {"a": 1.0}).run(30.0)
    assert world.commits == [(time, [("a", 0.6, 0)]) for time in (10.0, 20.0, 30.0)]
    assert [given[:4] for given in world.given] == [(10.0 * i, "a", 10, i + 1) for i in range(4)]


@pytest.mark.parametrize(("share", "a", "b"), [("samples", 0.25, 0.75), ("equal", 0.5, 0.5), ("one", 1.0, 1.0)])
def test_fedasync_counts_stale_work_less(share: Any, a: float, b: float) -> None:
    scheduler = FedAsync(1, steps=10, alpha=0.8, staleness=polynomial(0.5), share=share)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 3.0}, {"a": 10, "b": 30}).run(30.0)
    expected = [
        (10.0, "a", 0.8 * a, 0),
        (20.0, "a", 0.8 * a, 0),
        (30.0, "b", 0.8 * 3**-0.5 * b, 2),
        (30.0, "a", 0.8 * 2**-0.5 * a, 1),
    ]
    assert len(world.commits) == 4
    for (time, entries), (at, worker, weight, staleness) in zip(world.commits, expected, strict=True):
        assert (time, entries) == (at, [(worker, pytest.approx(weight), staleness)])


def test_fedasync_with_a_hinge() -> None:
    scheduler = FedAsync(1, steps=10, alpha=1.0, staleness=hinge(10.0, 1.0), share="one")
    world = VirtualClients(scheduler, {"a": 1.0, "b": 3.0}).run(30.0)
    assert [entries[0][1] for _, entries in world.commits] == pytest.approx([1.0, 1.0, 1 / 11, 1.0])


def test_fedbuff_commits_every_k_results_and_nobody_waits() -> None:
    scheduler = FedBuff(1, steps=10, buffer=2, alpha=1.0, staleness=constant())
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0, "c": 4.0}).run(30.0)
    assert world.commits == [(20.0, [("a", 0.5, 0), ("b", 0.5, 0)]), (30.0, [("a", 0.5, 1), ("a", 0.5, 0)])]
    assert [given[:2] + given[3:4] for given in world.given] == [
        (0.0, "a", 1),
        (0.0, "b", 1),
        (0.0, "c", 1),
        (10.0, "a", 1),
        (20.0, "b", 2),
        (20.0, "a", 2),
        (30.0, "a", 3),
    ]


def test_fedbuff_weighs_by_samples_and_staleness() -> None:
    scheduler = FedBuff(1, steps=10, buffer=2, alpha=0.5, staleness=polynomial(1.0), share="samples")
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0}, {"a": 10, "b": 30}).run(30.0)
    assert world.commits[0] == (20.0, [("a", 0.5 * 0.25, 0), ("b", 0.5 * 0.75, 0)])
    assert world.commits[1] == (30.0, [("a", 0.5 * 0.25 / 2, 1), ("a", 0.5 * 0.25, 0)])


def test_what_is_staler_than_the_bound_is_dropped_as_it_arrives() -> None:
    scheduler = FedBuff(1, steps=10, buffer=2, most_staleness=0)
    world = VirtualClients(scheduler, {"a": 1.0, "b": 2.0}).run(40.0)
    assert world.drops == [(time, "a", "stale: 1 versions old, at most 0 are taken") for time in (20.0, 40.0)]
    assert [time for time, _ in world.commits] == [20.0, 40.0]
    assert all(staleness == 0 for _, entries in world.commits for _, _, staleness in entries)


def test_what_grows_too_stale_in_the_buffer_is_dropped() -> None:
    world = VirtualClients(FedBuff(1, steps=10, buffer=2, most_staleness=0), {"a": 1.0, "b": math.inf}).run(10.0)
    assert Drop(Token(1, "a", 0), "stale: 4 versions old, at most 0 are taken") in world.scheduler.handle(
        Published(11.0, 5)
    )
    world.scheduler.check_valid()


def test_of_a_bounded_number_the_longest_idle_is_started_first() -> None:
    scheduler = FedBuff(1, steps=10, buffer=3, concurrency=2)
    world = VirtualClients(scheduler, dict.fromkeys("abcd", 1.0))
    world.at(Left(15.0, "c"))
    world.run(30.0)
    assert [given[:2] for given in world.given] == [
        (0.0, "a"),
        (0.0, "b"),
        (10.0, "c"),
        (10.0, "d"),
        (15.0, "a"),
        (20.0, "b"),
        (25.0, "d"),
        (30.0, "a"),
    ]


def test_the_run_s_end_commits_what_is_in_the_buffer() -> None:
    world = VirtualClients(FedBuff(1, steps=10, buffer=4, alpha=1.0), {"a": 1.0, "b": 2.0})
    world.at(Closing(12.0))
    world.run(12.0)
    assert world.commits == [(12.0, [("a", 0.25, 0)])]
    assert [(worker, reason) for _, worker, reason in world.drops] == [("a", "the run ends"), ("b", "the run ends")]


def test_a_new_attempt_takes_the_buffer_up() -> None:
    world = VirtualClients(FedBuff(1, steps=10, buffer=2, alpha=1.0, concurrency=2), dict.fromkeys("abc", 2.0))
    world.seconds["a"] = 1.0
    world.run(12.0)
    resumed = FedBuff(2, steps=10, buffer=2, alpha=1.0, concurrency=2)
    resumed.load_state_dict(json.loads(json.dumps(world.scheduler.state_dict())))
    resumed.handle(Published(12.0, 1))
    resumed.check_valid()
    assert resumed.clients["a"].free
    commands = resumed.handle(Arrived(20.0, "b", Token(1, "b", 1), 1, 10, 10, 8, 20.0, 0.0))
    assert commands == [Commit(((Token(1, "a", 0), 0.5), (Token(1, "b", 1), 0.5)))]
    (assign,) = resumed.handle(Published(20.0, 2))
    assert assign.token == Token(2, "a", 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("scheduler", "settings", "words"),
    [
        (FedBuff, {"buffer": 0}, "buffer is 0"),
        (FedBuff, {"steps": 0}, "steps is 0"),
        (FedBuff, {"concurrency": 0}, "concurrency is 0"),
        (FedBuff, {"most_staleness": -1}, "most_staleness is -1"),
        (FedBuff, {"alpha": 0.0}, "alpha is 0.0"),
        (FedBuff, {"share": "one"}, "share is 'one'"),
        (FedAsync, {"share": "mean"}, "share is 'mean'"),
        (FedAsync, {"alpha": math.nan}, "alpha is nan"),
    ],
)
def test_what_they_refuse(scheduler: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scheduler(1, **settings)
