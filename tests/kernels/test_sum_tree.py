"""The sum-tree against sums over all numbers, in C and in numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.kernels import backends
from isogon.kernels.sum_tree import SumTree

BOTH = pytest.mark.parametrize("native", [True, False])


def test_the_extension_is_there() -> None:
    assert backends.why_not("native") is None, "the tests in C below would be in numpy"


@BOTH
@given(
    size=st.integers(1, 40),
    changes=st.lists(
        st.lists(st.tuples(st.integers(0, 39), st.integers(0, 1000)), min_size=1, max_size=20), max_size=6
    ),
    places=st.lists(st.floats(0, 1), min_size=1, max_size=20),
)
def test_it_finds_what_brute_force_finds(
    native: bool, size: int, changes: list[list[tuple[int, int]]], places: list[float]
) -> None:
    """With whole masses, whose sums are exact."""
    tree, masses = SumTree(size, native=native), np.zeros(size)
    for change in changes:
        index = np.array([number % size for number, _ in change])
        for number, (_, mass) in zip(index, change, strict=True):
            masses[number] = mass
        tree.set(index, np.array([float(mass) for _, mass in change]))
    np.testing.assert_array_equal(tree.masses(), masses)
    assert tree.total == masses.sum()
    if not masses.sum():
        with pytest.raises(ValueError, match="all masses are 0"):
            tree.find(np.array(places))
        return
    place = np.array(places) * tree.total
    expected = np.minimum(np.searchsorted(np.cumsum(masses), place, side="right"), np.flatnonzero(masses)[-1])
    np.testing.assert_array_equal(tree.find(place), expected)


@given(seed=st.integers(0, 1000), size=st.integers(1, 300))
def test_c_and_numpy_give_the_same_bits(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    trees = [SumTree(size, native=native) for native in (True, False)]
    for _ in range(5):
        index, mass = rng.integers(size, size=30), rng.lognormal(0, 10, size=30)
        for tree in trees:
            tree.set(index, mass)
    assert trees[0].total == trees[1].total
    place = rng.random(50) * trees[0].total
    np.testing.assert_array_equal(trees[0].find(place), trees[1].find(place))


@BOTH
def test_sums_do_not_drift(native: bool) -> None:
    """After many changes by twenty orders of magnitude the total is that of the masses that are left."""
    rng = np.random.default_rng(0)
    tree = SumTree(1000, native=native)
    for _ in range(300):
        tree.set(rng.integers(1000, size=64), 10.0 ** rng.uniform(-10, 10, size=64))
    tree.set(np.arange(1000), np.full(1000, 0.1))
    exact = sum((Fraction(0.1) for _ in range(1000)), Fraction(0))
    assert abs(Fraction(tree.total) - exact) < Fraction(1, 10**11)


@BOTH
def test_numbers_without_mass_are_never_found(native: bool) -> None:
    tree = SumTree(9, native=native)
    tree.set(np.array([2, 5]), np.array([1e-300, 3.0]))
    place = np.array([0.0, 1e-300, 1.5, 2.9999999999999996, tree.total])
    assert set(tree.find(place).tolist()) <= {2, 5}
    assert tree.find(np.array([tree.total])).tolist() == [5]


@BOTH
@pytest.mark.parametrize(
    ("index", "mass", "message"),
    [
        ([0], [-1.0], "a mass is -1.0"),
        ([0], [np.nan], "a mass is nan"),
        ([0, 1], [0.0, np.inf], "a mass is inf"),
        ([4], [1.0], r"an index is 4: it must be in 0\.\.3"),
        ([-1], [1.0], "an index is -1"),
        ([0, 1], [1.0], r"index is \[2\] and mass \[1\]"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    native: bool, index: list[int], mass: list[float], message: str
) -> None:
    tree = SumTree(4, native=native)
    tree.set(np.arange(4), np.ones(4))
    with pytest.raises(ValueError, match=message):
        tree.set(np.array(index), np.array(mass))
    assert (tree.total, tree.masses().tolist()) == (4.0, [1.0] * 4)


@BOTH
@pytest.mark.parametrize("place", [-0.1, 4.1, np.nan])
def test_places_outside_are_refused(native: bool, place: float) -> None:
    tree = SumTree(4, native=native)
    tree.set(np.arange(4), np.ones(4))
    with pytest.raises(ValueError, match="places go from"):
        tree.find(np.array([place]))


def test_a_tree_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        SumTree(0)
