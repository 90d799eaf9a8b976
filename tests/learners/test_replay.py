from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.batch import Batch, Source
from isogon.learners.randomness import stream
from isogon.learners.replay import Replay
from isogon.learners.replay.replay import distinct_rows

from .source_suite import SourceSuite, assert_equal_batches, transitions

CAPACITY = 50


def replay(capacity: int = CAPACITY, batch_size: int = 16, *, seed: int = 0, merge_equal: bool = False) -> Replay:
    return Replay(capacity, batch_size, stream(seed, "replay"), merge_equal=merge_equal)


def held(ring: Replay) -> list[float]:
    """The rewards in the ring, which tell transitions apart, oldest first."""
    kept = ring.state_dict()["transitions"]
    return [float(reward) for reward in kept["reward_t"]] if kept else []


class TestTransitions(SourceSuite):
    bootstrapped = True
    merge_equal = False

    def make(self, seed: int) -> Source:
        return replay(seed=seed, merge_equal=self.merge_equal)

    def fill(self, source: Source, part: int) -> None:
        # 30, then over the end of the ring, then more than it holds.
        ring = cast(Replay, source)
        ring.insert(transitions([30, 37, 120, 7][part], part, bootstrapped=self.bootstrapped))


class TestMonteCarlo(TestTransitions):
    bootstrapped = False


class TestMergedPairs(TestMonteCarlo):
    merge_equal = True

    def test_pairs_are_the_unmerged_transitions(self) -> None:
        merged = cast(Replay, self.filled(1, 2))
        plain = replay(seed=1)
        for part in range(2):
            self.fill(plain, part)
        for _ in range(5):
            pairs, flat = merged.next_batch(), plain.next_batch()
            for name, part in flat["observation_tm1"].items():
                assert torch.equal(pairs["observation_tm1"][name][pairs["row"]], part)
                assert len(pairs["observation_tm1"][name]) < len(part), "some observations are equal"
            assert torch.equal(pairs["action"], flat["action_tm1"])
            assert torch.equal(pairs["target"], flat["reward_t"])
            assert torch.equal(pairs["index"], flat["index"])
            joined = torch.cat([part.double() for part in pairs["observation_tm1"].values()], dim=1)
            assert len(torch.unique(joined, dim=0)) == len(joined)

    def test_bootstrapped_transitions_are_refused(self) -> None:
        ring = replay(merge_equal=True)
        ring.insert(transitions(30, 0, bootstrapped=True))
        with pytest.raises(ValueError, match=r"merge_equal.*discount_t"):
            ring.next_batch()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_the_newest_are_kept_in_order(capacity: int, counts: list[int]) -> None:
    ring = replay(capacity, 2)
    everything: list[float] = []
    for seed, count in enumerate(counts):
        part = transitions(count, seed, bootstrapped=False)
        ring.insert(part)
        ring.check_valid()
        everything += part["reward_t"].tolist()
        assert held(ring) == everything[-capacity:]
        assert len(ring) == min(len(everything), capacity)
        assert ring.inserted == len(everything)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(0, 30))
def test_a_ring_of_another_capacity_takes_the_newest(before: int, after: int, counts: list[int], more: int) -> None:
    ring, other = replay(before), replay(after, 64)
    for seed, count in enumerate(counts):
        ring.insert(transitions(count, seed, bootstrapped=False))
    other.load_state_dict(ring.state_dict())
    other.check_valid()
    assert other.inserted == ring.inserted
    assert held(other) == held(ring)[-after:]
    if len(other):
        assert set(other.next_batch()["reward_t"].tolist()) <= set(held(ring)), "only what was inserted is sampled"
    part = transitions(more, len(counts), bootstrapped=False)
    other.insert(part)
    other.check_valid()
    assert held(other) == (held(ring)[-after:] + part["reward_t"].tolist())[-after:]


@pytest.mark.parametrize("counts", [[30], [30, 37], [50, 50, 1]])
def test_index_is_a_samples_number_in_the_order_of_insertion(counts: list[int]) -> None:
    ring = replay(CAPACITY, 200)
    rewards: list[float] = []
    for seed, count in enumerate(counts):
        part = transitions(count, seed, bootstrapped=False)
        ring.insert(part)
        rewards += part["reward_t"].tolist()
    batch = ring.next_batch()
    assert torch.equal(torch.tensor(rewards)[batch["index"]], batch["reward_t"])
    assert ring.sampled == 200


def test_samples_are_uniform() -> None:
    ring = replay(20, 20_000)
    ring.insert(transitions(33, 0, bootstrapped=False))
    # The last twenty of 33 are there.
    counts = torch.bincount(ring.next_batch()["index"] - 13, minlength=20)
    # Pearson's statistic with 19 degrees of freedom lies below 43.8 with probability 0.999; the seed is fixed.
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 43.8


def test_a_batch_is_a_copy() -> None:
    ring = replay()
    ring.insert(transitions(30, 0, bootstrapped=False))
    before = held(ring)
    batch = ring.next_batch()
    batch["reward_t"].fill_(7.0)
    assert held(ring) == before
    given = transitions(5, 1, bootstrapped=False)
    ring.insert(given)
    given["reward_t"][:] = 9.0
    assert 9.0 not in held(ring)


def changed(**fields: Any) -> dict[str, Any]:
    arrays = transitions(3, 1, bootstrapped=False) | fields
    return {name: part for name, part in arrays.items() if part is not None}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed(weight=np.ones(3, np.float32)), "fields.*weight"),
        (changed(**{"observation_tm1/clock": None}), "the replay has.*clock"),
        (changed(reward_t=np.zeros(4, np.float32)), r"reward_t is float32\[4\], expected float32\[3\]"),
        (changed(reward_t=np.zeros(3)), "reward_t is float64.*expected float32"),
        (
            changed(**{"observation_tm1/board": np.zeros((3, 3), np.int8)}),
            r"board is int8\[3, 3\], expected int8\[3, 2\]",
        ),
        (changed(action_tm1=np.zeros(3, np.int32)), "action_tm1 is int32"),
    ],
)
def test_other_transitions_than_before_are_refused(wrong: dict[str, Any], message: str) -> None:
    ring = replay()
    ring.insert(transitions(30, 0, bootstrapped=False))
    before = held(ring)
    with pytest.raises(ValueError, match=message):
        ring.insert(wrong)
    ring.check_valid()
    assert held(ring) == before
    assert ring.inserted == 30


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(changed(discount_t=None), "lack discount_t"), (changed(reward_t=np.zeros(4, np.float32)), "reward_t")],
)
def test_wrong_first_transitions_leave_the_ring_empty(wrong: dict[str, Any], message: str) -> None:
    ring = replay()
    with pytest.raises(ValueError, match=message):
        ring.insert(wrong)
    ring.check_valid()
    ring.insert(transitions(3, 0, bootstrapped=True))
    assert len(ring) == 3


def test_nothing_may_be_inserted() -> None:
    ring = replay()
    ring.insert(transitions(0, 0, bootstrapped=True))
    ring.check_valid()
    with pytest.raises(ValueError, match="empty"):
        ring.next_batch()
    ring.insert(transitions(2, 0, bootstrapped=True))
    assert len(ring) == 2


@pytest.mark.parametrize(("capacity", "batch_size"), [(0, 1), (1, 0)])
def test_sizes_are_checked(capacity: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        replay(capacity, batch_size)


def test_check_valid_sees_a_number_that_is_not_finite() -> None:
    ring = replay()
    ring.insert(changed(reward_t=np.array([0.0, np.nan, 1.0], np.float32)))
    with pytest.raises(AssertionError):
        ring.check_valid()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.sampled_from([-1.5, 0.0, 2.0])), min_size=1, max_size=20))
def test_distinct_rows_are_those_of_a_dictionary(rows: list[tuple[int, float]]) -> None:
    arrays = {
        "a": np.array([[row[0]] * 3 for row in rows], np.int8),
        "b": np.asfortranarray(np.array([[[row[1], 1.0]] for row in rows])),
    }
    first, inverse = distinct_rows(arrays)
    assert [rows[i] for i in first[inverse]] == rows
    assert len(first) == len(set(rows))
    assert all(rows.index(rows[i]) == i for i in first), "the first of equal rows is kept"


def test_batches_of_one_ring_do_not_depend_on_how_it_was_filled() -> None:
    whole, parts = replay(), replay()
    arrays = transitions(60, 0, bootstrapped=True)
    whole.insert(arrays)
    for begin in range(0, 60, 20):
        parts.insert({name: part[begin : begin + 20] for name, part in arrays.items()})
    one: Batch = whole.next_batch()
    assert_equal_batches(one, parts.next_batch())
