"""The weighted sum, statistics and counts: against float64 references, closed forms and the joined data."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.schedulers.aggregation import (
    Add,
    AveragedStep,
    AverageKind,
    Krum,
    Median,
    Momentum,
    Tensors,
    TrimmedMean,
    WeightedSum,
    check_update,
)
from isogon.schedulers.aggregation.average import BLOCK

KINDS: dict[str, AverageKind] = {
    "w": "mean",
    "half": "mean",
    "scalar": "mean",
    "empty": "mean",
    "bn.running_mean": "statistic",
    "bn.running_var": "statistic",
    "level": "statistic",
    "bn.num_batches_tracked": "integer",
}


def random_tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": np.asarray(
            rng.normal(size=(BLOCK // 2 + 9, 2)).astype(np.float32).T
        ),  # not contiguous, and more than a block
        "half": rng.normal(size=(3, 4)).astype(np.float16)[:, ::2],
        "scalar": np.array(rng.normal()),
        "empty": np.zeros((0, 3), np.float32),
        "bn.running_mean": rng.normal(size=4).astype(np.float32),
        "bn.running_var": rng.uniform(0.1, 2, size=4).astype(np.float32),
        "level": np.array(rng.normal(), np.float32),
        "bn.num_batches_tracked": np.array(rng.integers(100)),
    }


def fed_avg() -> AveragedStep:
    return AveragedStep(WeightedSum(), Add())


def bits(tensors: Tensors) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}


@pytest.mark.parametrize(
    "rule",
    [
        fed_avg(),
        AveragedStep(WeightedSum(), Momentum()),
        *(AveragedStep(average, Add()) for average in (Median(), TrimmedMean(1), Krum(1, keep=2))),
    ],
)
def test_layout_is_kept_and_nothing_is_written_into(rule: AveragedStep) -> None:
    model, updates = random_tensors(0), [random_tensors(seed) for seed in range(1, 7)]
    before = [bits(tensors) for tensors in (model, *updates)]
    for array in (*model.values(), *(array for update in updates for array in update.values())):
        array.flags.writeable = False
    new = rule.apply(model, [(update, 0.1) for update in updates], KINDS)
    assert [bits(tensors) for tensors in (model, *updates)] == before
    assert list(new) == list(model)
    for name, array in new.items():
        assert type(array) is np.ndarray
        assert (array.shape, array.dtype) == (model[name].shape, model[name].dtype)
        assert not np.shares_memory(array, model[name])
    assert bits(new) == bits(rule_again(rule).apply(model, [(update, 0.1) for update in updates], KINDS))


def rule_again(rule: AveragedStep) -> AveragedStep:
    return AveragedStep(rule.average, rule.optimiser)


def test_the_sum_is_that_of_float64_to_the_last_bit() -> None:
    model = random_tensors(0)
    updates = [(random_tensors(seed), 1.0 / (seed + 3)) for seed in range(1, 30)]
    new = fed_avg().apply(model, iter(updates), KINDS)
    for name in ("w", "half", "scalar"):
        total = np.sum([np.float64(update[name]) * weight for update, weight in updates], axis=0)
        np.testing.assert_array_max_ulp(new[name], (model[name] + total).astype(model[name].dtype), maxulp=1)


def test_fed_avg_of_all_clients_is_the_weighted_mean_of_their_models() -> None:
    rng = np.random.default_rng(1)
    model = {"w": rng.normal(size=50)}
    trained, samples = rng.normal(size=(8, 50)), rng.integers(1, 100, size=8)
    updates = [({"w": local - model["w"]}, n / samples.sum()) for local, n in zip(trained, samples, strict=True)]
    new = fed_avg().apply(model, updates, {"w": "mean"})
    np.testing.assert_allclose(new["w"], np.average(trained, axis=0, weights=samples), rtol=1e-12)


def test_a_lone_client_moves_everything_by_its_weight() -> None:
    model, update, alpha = random_tensors(0), random_tensors(1), 0.9
    new = fed_avg().apply(model, [(update, alpha)], KINDS)
    np.testing.assert_allclose(new["scalar"], model["scalar"] + alpha * update["scalar"], rtol=1e-14)
    for name in ("level", "bn.running_mean"):
        expected = 0.1 * np.float64(model[name]) + 0.9 * np.float64(update[name])
        np.testing.assert_allclose(new[name], expected, rtol=1e-6)
    assert new["bn.num_batches_tracked"] == max(model["bn.num_batches_tracked"], update["bn.num_batches_tracked"])


def batch_norm(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    return {"running_mean": mean, "running_var": variance}


BATCH_NORM: dict[str, AverageKind] = {"running_mean": "statistic", "running_var": "statistic"}


@pytest.mark.parametrize("sizes", [[50, 50, 50], [3, 400, 20, 1]])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_pooled_statistics_are_those_of_the_joined_data(sizes: list[int], scale: float) -> None:
    rng = np.random.default_rng(2)
    data = [rng.normal(rng.normal(size=6) * 30 + 1000, 0.5, size=(size, 6)) for size in sizes]
    joined = np.concatenate(data)
    updates = [(batch_norm(part.mean(0), part.var(0)), scale * len(part) / len(joined)) for part in data]
    new = fed_avg().apply(batch_norm(np.full(6, 7.0), np.full(6, 9.0)), updates, BATCH_NORM)
    np.testing.assert_allclose(new["running_mean"], joined.mean(0), rtol=1e-12)
    np.testing.assert_allclose(new["running_var"], joined.var(0), rtol=1e-10)


def test_statistics_mix_with_the_old_ones_as_data_would() -> None:
    rng = np.random.default_rng(3)
    old, new_data = rng.normal(5, 1, size=(300, 2)), rng.normal(-4, 2, size=(100, 2))
    model = batch_norm(old.mean(0), old.var(0))
    parts = [new_data[:60], new_data[60:]]
    updates = [(batch_norm(part.mean(0), part.var(0)), len(part) / 400) for part in parts]
    new = fed_avg().apply(model, updates, BATCH_NORM)
    joined = np.concatenate([old, new_data])
    np.testing.assert_allclose(new["running_mean"], joined.mean(0), rtol=1e-12)
    np.testing.assert_allclose(new["running_var"], joined.var(0), rtol=1e-12)


numbers = st.floats(-(2.0**60), 2.0**60, width=32)
variances = st.floats(0, 2.0**60, width=32)


@given(st.lists(st.tuples(numbers, variances, st.floats(0, 2)), min_size=2, max_size=6))
def test_no_variance_falls_below_zero(clients: list[tuple[float, float, float]]) -> None:
    tensors = [
        batch_norm(np.array([mean], np.float32), np.array([variance], np.float32)) for mean, variance, _ in clients
    ]
    updates = [(update, weight) for update, (_, _, weight) in zip(tensors[1:], clients[1:], strict=True)]
    assert fed_avg().apply(tensors[0], updates, BATCH_NORM)["running_var"] >= 0


def test_counts_stay_whole_and_never_fall() -> None:
    big = 2**53 + 1
    model = {"n": np.array([5, 7, big]), "seen": np.array([True, False])}
    updates = [
        ({"n": np.array([3, 9, 1]), "seen": np.array([False, False])}, 0.5),
        ({"n": np.array([4, 8, big + 1]), "seen": np.array([False, True])}, 0.01),
    ]
    new = fed_avg().apply(model, updates, {"n": "integer", "seen": "integer"})
    assert new["n"].tolist() == [5, 9, big + 1]
    assert new["seen"].tolist() == [True, True]


def test_few_updates_are_in_memory_at_a_time() -> None:
    model = random_tensors(0)
    alive: list[weakref.ref[np.ndarray]] = []

    def updates() -> Iterator[tuple[Tensors, float]]:
        for seed in range(20):
            assert sum(reference() is not None for reference in alive) <= 4 * len(model)
            update = random_tensors(seed)
            alive.extend(weakref.ref(array) for array in update.values())
            pair = [(update, 0.05)]
            del update
            yield pair.pop()

    fed_avg().apply(model, updates(), KINDS)
    assert len(alive) == 20 * len(model)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weights_are_checked(weight: float) -> None:
    model = {"w": np.zeros(2)}
    with pytest.raises(ValueError, match="weight of an update is"):
        fed_avg().apply(model, [(model, weight)], {"w": "mean"})


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"w": np.zeros(2)}, "the model has the tensor 'v' and the update has not"),
        ({"w": np.zeros(2), "v": np.ones(1), "x": np.ones(1)}, "the update has the tensor 'x' and the model has not"),
        ({"w": np.zeros(3), "v": np.ones(1)}, r"'w' as float64 \[3\]: the model has it as float64 \[2\]"),
        ({"w": np.zeros(2, np.float32), "v": np.ones(1)}, "'w' as float32"),
        ({"w": np.array([0, np.nan]), "v": np.ones(1)}, "a NaN or an infinity in 'w'"),
        ({"w": np.zeros(2), "v": np.array([np.inf])}, "a NaN or an infinity in 'v'"),
    ],
)
def test_unfit_updates_are_refused_by_name(update: dict[str, np.ndarray], message: str) -> None:
    model = {"w": np.zeros(2), "v": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        check_update(update, model, {"w": "mean", "v": "statistic"})


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_largest_numbers_are_finite(dtype: type[np.floating]) -> None:
    largest = np.finfo(dtype).max
    model = {"w": np.zeros(3, dtype)}
    check_update({"w": np.array([largest, -largest, 1], dtype)}, model, {"w": "mean"})
    with pytest.raises(ValueError, match="a NaN or an infinity in 'w'"):
        check_update({"w": np.array([largest, -largest, -np.inf], dtype)}, model, {"w": "mean"})


def test_a_negative_variance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"-1\.0 in 'running_var': a variance must be at least 0"):
        check_update(batch_norm(np.zeros(1), -np.ones(1)), batch_norm(np.zeros(1), np.ones(1)), BATCH_NORM)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({}, "'w' is not in kinds"),
        ({"w": "mean", "x": "mean"}, "'x' is not in the model"),
        ({"w": "mode"}, "kind of 'w' is 'mode'"),
        ({"w": "integer"}, "'w' is float64: averaged as 'integer' it must have an integer dtype"),
    ],
)
def test_kinds_are_checked(kinds: dict[str, AverageKind], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fed_avg().apply({"w": np.zeros(2)}, [], kinds)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_numbers_do_not_hang_on_how_many_threads_work_on_them(parts: int) -> None:
    rng = np.random.default_rng(3)
    model, *updates = ({"w": rng.normal(size=2 * BLOCK + 17).astype(np.float32)} for _ in range(7))
    weighted = [(update, 0.1) for update in updates]
    with ThreadPoolExecutor(parts) as threads:
        rule = AveragedStep(WeightedSum(), Momentum(), parts=parts, side_by_side=threads.map)
        alone = AveragedStep(WeightedSum(), Momentum())
        for _ in range(2):
            expected = alone.apply(model, weighted, {"w": "mean"})
            new = rule.apply(model, weighted, {"w": "mean"})
            assert bits(new) == bits(expected)
            assert bits(rule.state_dict()["slots"]["w"]) == bits(alone.state_dict()["slots"]["w"])
        model["w"][-1] = np.inf
        with pytest.raises(ValueError, match="the next model would not be finite in 'w'"):
            rule.apply(model, weighted, {"w": "mean"})


def test_a_commit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="commit holds 0 updates: WeightedSum needs at least 1"):
        fed_avg().apply({"w": np.zeros(2)}, [], {"w": "mean"})


def test_a_model_that_would_overflow_is_refused_and_the_state_kept() -> None:
    model = {"w": np.ones(2, np.float32)}
    rule = AveragedStep(WeightedSum(), Momentum())
    model = rule.apply(model, [(model, 1.0)], {"w": "mean"})
    before = rule.state_dict()
    with pytest.raises(ValueError, match="the next model would not be finite in 'w'"):
        rule.apply(model, [({"w": np.full(2, 3e38, np.float32)}, 2.0)], {"w": "mean"})
    assert rule.state_dict()["slots"]["w"]["velocity"] is before["slots"]["w"]["velocity"]
