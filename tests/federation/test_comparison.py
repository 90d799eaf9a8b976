"""Times to a target, against numbers made by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.system.federation.comparison import Row, geometric_mean, relative_times
from isogon.system.federation.simulation import RunKey, SimulatedRun


def run(strategy: str, seed: int, target_seconds: float | None, **changes: Any) -> SimulatedRun:
    one = SimulatedRun(
        key=RunKey(strategy, "normal", seed),
        target_seconds=target_seconds,
        score=0.9,
        seconds=1_000.0,
        versions=10,
        updates=20,
        local_steps=2_000,
        dropped=1,
        staleness=2.0,
        utilisation=0.5,
    )
    return replace(one, **changes)


def compared(times: dict[str, list[float | None]], reference: str = "a") -> dict[str, Row]:
    runs = [run(name, seed, time) for name, own in times.items() for seed, time in enumerate(own)]
    return {row.strategy: row for row in relative_times(runs, reference)}


def test_ratios_are_averaged_geometrically_seed_by_seed() -> None:
    rows = compared({"a": [100.0, 400.0, 50.0], "b": [400.0, 400.0, 100.0]})
    assert list(rows) == ["a", "b"]
    assert rows["b"].ratio == pytest.approx(2.0)  # The cube root of 4 x 1 x 2.
    assert [rows["b"].ratio_low, rows["b"].ratio_high] == [1.0, 4.0]
    assert rows["b"].seconds == pytest.approx((400 * 400 * 100) ** (1 / 3))
    assert (rows["b"].seconds_low, rows["b"].seconds_high) == (100.0, 400.0)
    assert (rows["a"].ratio, rows["a"].ratio_low, rows["a"].ratio_high) == (1.0, 1.0, 1.0)
    assert (rows["a"].rank, rows["b"].rank) == (1, 2)
    assert (rows["b"].reached, rows["b"].runs, rows["b"].at_least) == (3, 3, None)


def test_a_strategy_that_did_not_reach_the_target_has_no_mean_but_a_bound() -> None:
    rows = compared({"a": [100.0, 100.0], "b": [50.0, None]})
    assert (rows["b"].reached, rows["b"].runs) == (1, 2)
    assert (rows["b"].ratio, rows["b"].ratio_low, rows["b"].seconds, rows["b"].rank) == (None, None, None, None)
    # Its second run was 1,000 s long: the root of 0.5 x 10.
    assert rows["b"].at_least == pytest.approx(math.sqrt(5))
    assert rows["a"].rank == 1


def test_nothing_is_relative_to_a_reference_that_did_not_reach_the_target() -> None:
    rows = compared({"a": [None, 100.0], "b": [200.0, 200.0], "c": [None, None]})
    assert all(row.ratio is None and row.at_least is None for row in (rows["b"], rows["c"]))
    assert rows["b"].seconds == pytest.approx(200.0)
    assert rows["b"].rank == 1
    assert (rows["a"].ratio, rows["a"].at_least) == (None, None)


def test_ties_are_ties() -> None:
    rows = compared({"a": [2.0, 3.0, 3.0], "b": [3.0, 3.0, 2.0], "c": [18.0, 1.0, 1.0], "d": [30.0, 30.0, 30.0]})
    assert rows["a"].seconds != rows["c"].seconds, "they differ in their rounding"
    assert [row.rank for row in rows.values()] == [1, 1, 1, 4]
    assert rows["c"].ratio == pytest.approx(1.0)
    assert [rows["c"].ratio_low, rows["c"].ratio_high] == pytest.approx([1 / 3, 9.0])


def test_a_target_that_the_first_model_reaches() -> None:
    rows = compared({"a": [0.0, 10.0], "b": [0.0, 20.0], "c": [5.0, 20.0]})
    assert rows["b"].ratio == pytest.approx(math.sqrt(2))
    assert rows["b"].seconds == 0.0
    assert rows["c"].ratio is None


def test_the_other_figures_are_means_over_seeds() -> None:
    runs = [run("a", 0, 1.0, staleness=None, dropped=0, score=0.8), run("a", 1, 1.0, versions=20)]
    (row,) = relative_times(runs, "a")
    assert [row.staleness, row.dropped, row.score, row.versions] == pytest.approx([2.0, 0.5, 0.85, 15.0])


@given(st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=6))
def test_the_reference_may_be_either(times: list[tuple[float, float]]) -> None:
    both: dict[str, list[float | None]] = {"a": [a for a, _ in times], "b": [b for _, b in times]}
    there, back = compared(both, "a")["b"], compared(both, "b")["a"]
    assert there.ratio is not None
    assert back.ratio is not None
    assert there.seconds is not None
    assert there.ratio * back.ratio == pytest.approx(1.0)
    # The ratio of the means is the mean of the ratios.
    assert there.ratio == pytest.approx(there.seconds / geometric_mean([a for a, _ in times]))


def test_what_cannot_be_compared_is_said() -> None:
    one = run("a", 0, 1.0)
    with pytest.raises(ValueError, match="reference is b, and there are runs of a"):
        relative_times([one], "b")
    with pytest.raises(ValueError, match="a has the seed 0 twice"):
        relative_times([one, one], "a")
    with pytest.raises(ValueError, match=r"b has runs with the seeds \[1\] and a with \[0\]"):
        relative_times([one, run("b", 1, 1.0)], "a")
    with pytest.raises(ValueError, match="speeds normal and even: compare each apart"):
        relative_times([one, replace(one, key=RunKey("b", "even", 0))], "a")
