"""Random streams: named, independent, and resumed bit by bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.randomness import restore_stream, stream, stream_state, torch_generator

DRAWS: list[Callable[[np.random.Generator], Any]] = [
    lambda generator: generator.random(),
    lambda generator: generator.random(dtype=np.float32),
    lambda generator: generator.standard_normal(3).tolist(),
    lambda generator: int(generator.integers(5)),
    lambda generator: int(generator.integers(2**63 - 1)),
    lambda generator: generator.permutation(7).tolist(),
    lambda generator: generator.choice(9, size=4, replace=False).tolist(),
]


INDICES: list[tuple[int, ...]] = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0)]


def test_a_stream_is_philox_keyed_by_its_name() -> None:
    key = hashlib.sha256(b"3/replay/0/12").digest()[:16]
    words = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    found = stream(3, "replay", 0, 12)
    assert stream_state(found)["key"] == words
    assert (
        found.random(5).tolist()
        == np.random.Generator(np.random.Philox(key=np.array(words, np.uint64))).random(5).tolist()
    )


def test_the_numbers_are_those_of_every_machine_and_version() -> None:
    assert stream(0, "replay").integers(10**6, size=4).tolist() == [301321, 834611, 321362, 229636]
    assert torch.rand(2, generator=torch_generator(stream(0, "network"))).tolist() == [
        0.33177947998046875,
        0.052601635456085205,
    ]


def test_each_name_has_numbers_of_its_own() -> None:
    names: list[tuple[Any, ...]] = [(seed, role, *index) for seed in (0, 1) for role in ("a", "b") for index in INDICES]
    first = [int(stream(*name).integers(2**63 - 1)) for name in names]
    assert len(set(first)) == len(names)


def test_two_streams_are_not_correlated() -> None:
    one, other = stream(0, "env", 0).standard_normal(20_000), stream(0, "env", 1).standard_normal(20_000)
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 4 / np.sqrt(20_000)


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(st.sampled_from(DRAWS), max_size=12),
    after=st.lists(st.sampled_from(DRAWS), min_size=1, max_size=8),
)
def test_a_stream_goes_on_where_it_was_stored(
    before: list[Callable[[np.random.Generator], Any]], after: list[Callable[[np.random.Generator], Any]]
) -> None:
    original = stream(7, "policy", 2)
    for draw in before:
        draw(original)
    stored = json.loads(json.dumps(stream_state(original), allow_nan=False))
    restored = restore_stream(stored)
    assert [draw(restored) for draw in after] == [draw(original) for draw in after]
    assert stream_state(restored) == stream_state(original)


@pytest.mark.parametrize("name", [(-1, "replay"), (0, "replay", -1), (0, "replay", 3, -2)])
def test_negative_numbers_are_refused(name: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must be at least 0"):
        stream(*name)


def test_only_philox_streams_are_stored() -> None:
    with pytest.raises(ValueError, match="PCG64"):
        stream_state(np.random.default_rng(0))


def test_a_role_cannot_hide_an_index() -> None:
    with pytest.raises(ValueError, match="a/2"):
        stream(1, "a/2")
