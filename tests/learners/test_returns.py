"""Bounds of returns, ranges and scales, against closed forms and slow readings."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.values import ReturnBounds, fitting_scale, range_around

rewards = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=12)
episodes = st.lists(st.tuples(rewards, st.booleans()), min_size=1, max_size=6)


def bounds_of(
    games: list[tuple[list[float], bool]], discount: float, longest: int | None = None
) -> tuple[float, float]:
    bounds = ReturnBounds(discount, longest)
    for reward, terminated in games:
        bounds.observe(np.array(reward, np.float32), terminated)
    return bounds.bounds()


# Games whose returns are known.


@pytest.mark.parametrize(
    ("games", "discount", "longest", "expected"),
    [
        # CartPole, short games: 1 a step, cut off at some time, and then worth as much as before.
        ([([1.0] * 9, True), ([1.0] * 20, True)], 0.99, None, (1.0, 100.0)),
        # The same by Monte-Carlo: a game has 500 steps at most.
        ([([1.0] * 9, True)], 0.99, 500, (1.0, (1 - 0.99**500) / 0.01)),
        ([([1.0] * 9, True)], 1.0, 500, (1.0, 500.0)),
        # Wordle, without a lost game: six misses at most, and the one that solves costs nothing.
        ([([-1.0, -1.0, 0.0], True), ([-1.0, 0.0], True)], 1.0, 6, (-6.0, 0.0)),
        ([([-1.0, -1.0, 0.0], True), ([-1.0] * 6, True)], 1.0, 6, (-6.0, 0.0)),
        # FrozenLake: a goal's 1 comes once, however long a game may be.
        ([([0.0] * 7 + [1.0], True), ([0.0] * 3, True)], 0.99, None, (0.0, 1.0)),
        # MountainCar, whose poor player is always cut off: -1 a step for ever.
        ([([-1.0] * 200, False)], 0.99, None, (-100.0, -1.0)),
        # Acrobot: a game that ends does so with 0.
        ([([-1.0] * 80 + [0.0], True), ([-1.0] * 500, False)], 0.99, None, (-100.0, 0.0)),
        # What is to come counts on the way, although the mean of the game is 0.
        ([([-1.0] * 4 + [1.0] * 4, False)], 1.0, 8, (0.0, 4.0)),
        # Without a limit and a discount the longest game is the longest that was seen.
        ([([2.0] * 3, False), ([1.0] * 5, False)], 1.0, None, (1.0, 10.0)),
        ([([7.0], True)], 0.9, None, (7.0, 7.0)),
    ],
)
def test_known_games(
    games: list[tuple[list[float], bool]], discount: float, longest: int | None, expected: tuple[float, float]
) -> None:
    assert bounds_of(games, discount, longest) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(episodes, st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_every_return_to_go_lies_between_the_bounds(games: list[tuple[list[float], bool]], discount: float) -> None:
    low, high = bounds_of(games, discount, 12)
    slack = 1e-4
    for reward, _ in games:
        for start in range(len(reward)):
            to_go = sum(discount**k * r for k, r in enumerate(reward[start:]))
            assert low - slack <= to_go <= high + slack


@settings(max_examples=60, deadline=None)
@given(episodes, st.sampled_from([0.5, 0.99, 1.0]), st.sampled_from([12, None]))
def test_bounds_scale_with_the_rewards(
    games: list[tuple[list[float], bool]], discount: float, longest: int | None
) -> None:
    low, high = bounds_of(games, discount, longest)
    larger = [([1024 * reward for reward in rewards], terminated) for rewards, terminated in games]
    # A power of two changes no digit, so that equal means equal.
    assert bounds_of(larger, discount, longest) == (1024 * low, 1024 * high)


@settings(max_examples=40, deadline=None)
@given(episodes)
def test_bounds_only_widen_and_survive_a_checkpoint(games: list[tuple[list[float], bool]]) -> None:
    bounds = ReturnBounds(0.9, None)
    low, high = math.inf, -math.inf
    for reward, terminated in games:
        bounds.observe(np.array(reward, np.float32), terminated)
        other = ReturnBounds(0.9, None)
        other.load_state_dict(json.loads(json.dumps(bounds.state_dict())))
        assert other == bounds
        assert bounds.bounds()[0] <= low
        assert bounds.bounds()[1] >= high
        low, high = bounds.bounds()
    assert bounds.episodes == len(games)


def test_what_cannot_be_observed_is_refused() -> None:
    bounds = ReturnBounds(0.9, None)
    with pytest.raises(ValueError, match="no episode"):
        bounds.bounds()
    for reward in ([], [[1.0]], [1.0, math.nan]):
        with pytest.raises(ValueError, match="finite"):
            bounds.observe(np.array(reward), True)
    with pytest.raises(ValueError, match=r"discount is 1\.1"):
        ReturnBounds(1.1, None)
    with pytest.raises(ValueError, match="longest is 0"):
        ReturnBounds(0.9, 0)
    fresh = ReturnBounds(0.9, None)
    fresh.load_state_dict(json.loads(json.dumps(ReturnBounds(0.9, None).state_dict())))
    assert fresh == ReturnBounds(0.9, None)


# Ranges.


@pytest.mark.parametrize(
    ("bounds", "margin", "expected"),
    [
        ((1.0, 100.0), 0.1, (-9.0, 110.0)),
        ((-6.0, 0.0), 0.1, (-6.6, 0.6)),
        ((-6.0, 0.0), 0.0, (-6.0, 0.0)),
        ((0.0, 1.0), 0.1, (-0.1, 1.1)),
        ((0.0, 1e-6), 0.0, (0.0, 1e-6)),
        ((-2438.0, -1.0), 0.0, (-2440.0, 0.0)),
        # All alike: a tenth of it.
        ((7.0, 7.0), 0.0, (6.65, 7.35)),
    ],
)
def test_known_ranges(bounds: tuple[float, float], margin: float, expected: tuple[float, float]) -> None:
    assert range_around(bounds, margin) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_a_range_holds_its_bounds(low: float, width: float, margin: float) -> None:
    high = low + width
    if max(abs(low), abs(high)) < 1e-6:
        return
    begin, end = range_around((low, high), margin)
    assert begin < end
    slack = 1e-6 * (end - begin)
    assert begin <= low - margin * width + slack
    assert end >= high + margin * width - slack


def test_a_range_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="every reward was 0"):
        range_around((0.0, 0.0), 0.1)


# Scales.


@pytest.mark.parametrize(
    ("bounds", "ends", "scale"),
    [
        ((1.0, 100.0), (0.0, 1.0), 100.0),
        ((1.0, 100.0), (-5.0, 5.0), 20.0),
        ((-300.0, 100.0), (-1.0, 1.0), 300.0),
        ((-300.0, 100.0), (-3.0, 0.5), 200.0),
        ((-6.0, 0.0), (-1.0, 1.0), 6.0),
        # Below 0 nothing can be made to fit: the other end decides.
        ((-300.0, 100.0), (0.0, 1.0), 100.0),
        ((0.0, 0.0), (-1.0, 1.0), 1.0),
    ],
)
def test_known_scales(bounds: tuple[float, float], ends: tuple[float, float], scale: float) -> None:
    assert fitting_scale(bounds, *ends) == scale
