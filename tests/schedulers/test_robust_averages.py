"""Robust averages against brute force, and against clients that lie."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.schedulers.aggregation import Add, AveragedStep, AverageKind, Krum, Median, Tensors, TrimmedMean

KINDS: dict[str, AverageKind] = {"a": "mean", "b": "mean"}
ROBUST = [Median(), TrimmedMean(2), Krum(2), Krum(2, keep=3)]


def random_updates(seed: int, clients: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"a": rng.normal(size=(3, 2)), "b": np.array(rng.normal())} for _ in range(clients)]


def combined(
    average: Median | TrimmedMean | Krum, updates: list[dict[str, np.ndarray]], weight: float
) -> dict[str, np.ndarray]:
    """What is added to a model of zeros."""
    zeros = {name: np.zeros_like(array) for name, array in updates[0].items()}
    kinds: dict[str, AverageKind] = {name: KINDS[name] for name in zeros}
    return AveragedStep(average, Add()).apply(zeros, [(update, weight) for update in updates], kinds)


@given(st.integers(0, 1000), st.integers(3, 9))
def test_the_median_is_that_of_each_number(seed: int, clients: int) -> None:
    updates = random_updates(seed, clients)
    found = combined(Median(), updates, 0.5)
    for name in KINDS:
        for index in np.ndindex(updates[0][name].shape):
            middle = statistics.median(float(update[name][index]) for update in updates)
            assert found[name][index] == pytest.approx(0.5 * clients * middle, rel=1e-12)


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(0, 3))
def test_the_trimmed_mean_is_that_of_each_number(seed: int, trim: int, more: int) -> None:
    updates = random_updates(seed, 2 * trim + 1 + more)
    found = combined(TrimmedMean(trim), updates, 1.0 / len(updates))
    for name in KINDS:
        for index in np.ndindex(updates[0][name].shape):
            kept = sorted(float(update[name][index]) for update in updates)[trim:-trim]
            assert found[name][index] == pytest.approx(statistics.fmean(kept), rel=1e-12, abs=1e-15)


def krum_by_hand(updates: list[dict[str, np.ndarray]], faulty: int) -> list[int]:
    """Clients by score, best first."""
    vectors = [np.append(update["a"].ravel(), update["b"]) for update in updates]
    scores = []
    for i, one in enumerate(vectors):
        distances = sorted(float(np.sum((one - other) ** 2)) for j, other in enumerate(vectors) if j != i)
        scores.append(sum(distances[: len(vectors) - faulty - 2]))
    return sorted(range(len(vectors)), key=scores.__getitem__)


@given(st.integers(0, 1000), st.integers(0, 2), st.integers(0, 3), st.integers(1, 3))
def test_krum_is_that_of_a_loop_over_all_pairs(seed: int, faulty: int, more: int, keep: int) -> None:
    updates = random_updates(seed, 2 * faulty + 3 + more)
    best = krum_by_hand(updates, faulty)[:keep]
    found = combined(Krum(faulty, keep), updates, 1.0 / len(updates))
    for name in KINDS:
        expected = np.mean([updates[index][name] for index in best], axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-12, atol=1e-15)


def test_krum_takes_the_earlier_of_equals() -> None:
    # 1 and -1 have the same score, 3 and -3 a larger one.
    updates = [{"b": np.array(value)} for value in [-3.0, 1.0, 3.0, -1.0] * 16]
    for keep, expected in ((1, 1.0), (2, 0.0), (3, 1 / 3), (8, 0.0)):
        assert combined(Krum(0, keep), updates, 1 / 64)["b"] == pytest.approx(expected)


@pytest.mark.parametrize("average", ROBUST)
@pytest.mark.parametrize("attack", [1e6, -1e30, 1e200, 1.5e308])
def test_liars_move_the_mean_and_not_these(average: Median | TrimmedMean | Krum, attack: float) -> None:
    rng = np.random.default_rng(4)
    honest = [{"a": rng.normal(1.0, 0.1, size=(3, 2)), "b": np.array(1.0)} for _ in range(7)]
    liars = [{"a": np.full((3, 2), attack), "b": np.array(attack)} for _ in range(2)]
    updates = [*honest[:3], liars[0], *honest[3:], liars[1]]
    assert abs(sum(float(update["b"]) / len(updates) for update in updates)) > 1e5
    found = combined(average, updates, 1.0 / len(updates))
    assert all(np.abs(array - 1.0).max() < 0.5 for array in found.values())


@pytest.mark.parametrize("average", ROBUST)
def test_liars_do_not_move_statistics_or_counts(average: Median | TrimmedMean | Krum) -> None:
    rng = np.random.default_rng(5)

    def tensors(mean: float, variance: float, count: int) -> dict[str, np.ndarray]:
        change = rng.normal(1.0, 0.1, size=5) if count < 100 else np.full(5, 1e6)
        values = {"running_mean": [mean], "running_var": [variance]}
        return {
            "w": change,
            **{name: np.array(value, np.float32) for name, value in values.items()},
            "n": np.array(count),
        }

    honest = [tensors(rng.normal(3, 0.1), rng.uniform(0.9, 1.1), 10 + index) for index in range(7)]
    updates = [*honest, tensors(1e9, 1e9, 2**62), tensors(-1e9, 1e9, 2**62)]
    kinds: dict[str, AverageKind] = {
        "w": "mean",
        "running_mean": "statistic",
        "running_var": "statistic",
        "n": "integer",
    }
    model = tensors(0.0, 1.0, 5)
    new = AveragedStep(average, Add()).apply(model, [(update, 1 / 9) for update in updates], kinds)
    assert 2.5 < new["running_mean"][0] < 3.5
    assert 0.5 < new["running_var"][0] < 1.6
    assert 10 <= new["n"] <= 16
    assert new["n"].dtype == np.int64


@pytest.mark.parametrize("average", ROBUST)
def test_large_tensors_are_taken_in_blocks(average: Median | TrimmedMean | Krum) -> None:
    rng = np.random.default_rng(6)
    stack = rng.normal(size=(9, 120_001)).astype(np.float32)
    found = combined(average, [{"a": row} for row in stack], 1 / 9)["a"]
    if isinstance(average, Median):
        expected = np.median(stack, axis=0)
    elif isinstance(average, TrimmedMean):
        expected = np.sort(stack, axis=0)[2:-2].mean(axis=0)
    else:
        distances = ((stack[:, None, ::1] - stack[None, :, ::1]) ** 2).sum(axis=2)
        scores = np.sort(distances, axis=1)[:, 1:6].sum(axis=1)
        expected = stack[np.argsort(scores)[: average.keep]].mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("average", "least"), [(Median(), 3), (TrimmedMean(2), 5), (Krum(2), 7), (Krum(0), 3), (Krum(1, keep=9), 10)]
)
def test_too_few_and_too_many_are_errors(average: Median | TrimmedMean | Krum, least: int) -> None:
    assert AveragedStep(average, Add()).least_updates == least
    with pytest.raises(ValueError, match=f"commit holds {least - 1} updates: .* needs at least {least}"):
        combined(average, random_updates(0, least - 1), 1.0)
    combined(average, random_updates(0, least), 1.0)
    combined(average, random_updates(0, 100), 1.0)
    seen = 0

    def endless() -> object:
        nonlocal seen
        while True:
            seen += 1
            yield random_updates(seen, 1)[0], 1.0

    model: Tensors = random_updates(0, 1)[0]
    with pytest.raises(ValueError, match="more than 100 updates, the most_updates"):
        AveragedStep(average, Add()).apply(model, endless(), KINDS)  # type: ignore[arg-type]
    assert seen == 101


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="trim is 0"):
        TrimmedMean(0)
    with pytest.raises(ValueError, match="keep 0"):
        Krum(1, keep=0)
    with pytest.raises(ValueError, match="most_updates is 4: it must be at least 5"):
        Krum(1, most_updates=4)
