"""Every row goes to one client, whatever the labels, the numbers and the seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.actors.federation.partition import (
    Parts,
    class_partition,
    dual_dirichlet_partition,
    even_partition,
    with_least,
)

TEN = np.arange(1000) % 10


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def even(labels: np.ndarray, clients: int, seed: int) -> Parts:
    return even_partition(labels, clients, seeded(seed))


def classes(labels: np.ndarray, clients: int, seed: int) -> Parts:
    return class_partition(labels, clients, 1, len(np.unique(labels)), seeded(seed))


def dirichlet(labels: np.ndarray, clients: int, seed: int) -> Parts:
    return dual_dirichlet_partition(labels, clients, clients, 0.5, seeded(seed))


KINDS = pytest.mark.parametrize("partition", [even, classes, dirichlet])


@KINDS
@given(
    labels=st.lists(st.integers(-3, 5), min_size=1, max_size=80),
    clients=st.integers(1, 30),
    seed=st.integers(0, 2**32),
)
def test_every_row_goes_to_one_client(
    partition: Callable[[np.ndarray, int, int], Parts], labels: list[int], clients: int, seed: int
) -> None:
    parts = partition(np.array(labels), clients, seed)
    assert len(parts) == clients
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    again = partition(np.array(labels), clients, seed)
    assert all((part == same).all() for part, same in zip(parts, again, strict=True))
    if len(labels) >= 2 * clients:
        repaired = with_least(parts, 2, seeded(seed))
        assert min(map(len, repaired)) >= 2
        assert np.sort(np.concatenate(repaired)).tolist() == list(range(len(labels)))


@KINDS
def test_another_seed_is_another_partition(partition: Callable[[np.ndarray, int, int], Parts]) -> None:
    one, other = partition(TEN, 10, 0), partition(TEN, 10, 1)
    assert any(part.tolist() != different.tolist() for part, different in zip(one, other, strict=True))


@given(rows=st.integers(1, 200), clients=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_even_parts_differ_by_a_row_at_most(rows: int, clients: int, seed: int) -> None:
    sizes = [len(part) for part in even(np.zeros(rows, np.int64), clients, seed)]
    assert max(sizes) - min(sizes) <= 1


@given(
    bounds=st.tuples(st.integers(1, 10), st.integers(1, 10)).map(sorted),
    clients=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_clients_have_few_classes_and_every_class_a_client(bounds: list[int], clients: int, seed: int) -> None:
    fewest, most = bounds
    if clients * most < 10:
        with pytest.raises(ValueError, match=f"{clients} clients of at most {most} classes cannot have all 10"):
            class_partition(TEN, clients, fewest, most, seeded(seed))
        return
    counts = [len(np.unique(TEN[part])) for part in class_partition(TEN, clients, fewest, most, seeded(seed))]
    assert max(counts) <= most
    # A client whose share of a class comes to less than a row has one class fewer, which 1,000 rows hardly allow.
    assert min(counts) >= fewest - 1


def test_class_counts_are_uniform_between_the_bounds() -> None:
    counts = [len(np.unique(TEN[part])) for seed in range(60) for part in class_partition(TEN, 10, 3, 5, seeded(seed))]
    assert np.bincount(counts, minlength=6)[3:] / len(counts) == pytest.approx([1 / 3] * 3, abs=0.06)


@pytest.mark.parametrize("alpha", [0.5, 8.0, 200.0])
def test_sizes_have_the_variance_of_their_dirichlet_distribution(alpha: float) -> None:
    """With one class a client's size is its weight; Var w_i = p (1 - p) / (alpha + 1) with p = 1/M."""
    clients, rows = 10, 10_000
    parts = [dual_dirichlet_partition(np.zeros(rows, np.int64), clients, alpha, 1.0, seeded(s)) for s in range(400)]
    sizes = np.array([[len(part) for part in each] for each in parts]) / rows
    assert sizes.var() == pytest.approx(0.1 * 0.9 / (alpha + 1), rel=0.15)


def test_large_alphas_even_out_and_small_ones_separate() -> None:
    mixed = dual_dirichlet_partition(TEN, 10, 1e6, 1e6, seeded(0))
    assert all(np.bincount(TEN[part], minlength=10).tolist() == pytest.approx([10] * 10, abs=2) for part in mixed)
    apart = dual_dirichlet_partition(TEN, 10, 1e6, 1e-3, seeded(0))
    largest = [np.bincount(TEN[part]).max() / len(part) for part in apart if len(part)]
    assert np.mean(largest) > 0.7


def test_thousands_of_clients_are_dealt_and_repaired_quickly() -> None:
    labels = np.arange(40_000) % 10
    parts = with_least(dirichlet(labels, 10_000, 0), 1, seeded(1))
    assert min(map(len, parts)) == 1
    assert sum(map(len, parts)) == 40_000


def test_who_has_enough_keeps_it() -> None:
    parts = [np.array([], np.int64), np.array([3]), np.arange(4, 50), np.array([0, 1, 2])]
    repaired = with_least(parts, 3, seeded(0))
    assert [len(part) for part in repaired] == [3, 3, 41, 3]
    assert set(repaired[1]) > {3}
    assert with_least(parts[1:], 0, seeded(0)) == parts[1:]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: with_least([np.arange(9), np.array([], int)], 0, seeded(0)), "client 1 .* left without data.*fewer"),
        (lambda: with_least([np.arange(9)] * 3, 10, seeded(0)), "3 clients share 27 samples: that is not 10 for each"),
        (lambda: with_least([np.arange(1), *[np.arange(0)] * 2], 0, seeded(0)), "3 clients share 1 samples"),
        (lambda: class_partition(TEN, 10, 3, 11, seeded(0)), "most 11: expected 1 <= fewest <= most <= 10 classes"),
        (lambda: class_partition(TEN, 10, 4, 3, seeded(0)), "fewest is 4 and most 3"),
        (lambda: dual_dirichlet_partition(TEN, 10, 0, 1, seeded(0)), "size_alpha is 0"),
        (lambda: dual_dirichlet_partition(TEN, 10, 1, float("nan"), seeded(0)), "class_alpha is nan"),
        (lambda: even_partition(TEN, 0, seeded(0)), "clients is 0"),
        (lambda: even_partition(TEN / 2, 3, seeded(0)), r"labels are float64\[1000\]"),
    ],
)
def test_what_cannot_be_dealt_is_refused(call: Callable[[], Parts], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
