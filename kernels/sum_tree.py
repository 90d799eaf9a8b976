"""A sum-tree: numbers drawn in proportion to their masses, and masses changed, in logarithmic time each."""

from __future__ import annotations

import numpy as np

try:
    from . import _native
except ImportError:  # Without a compiler numpy does the same, level by level.
    _native = None  # type: ignore[assignment]


class SumTree:
    """Masses of ``size`` numbers, all 0 at first, in float64.

    Sums are made anew from their two parts with each change, so they do not drift however often masses change. In C
    where the extension is built; numpy gives the same bits.

    Args:
        size: how many numbers, at least 1.
        native: use C; False is for tests, and for where C is not.

    Raises:
        ValueError: ``size`` is below 1.
    """

    def __init__(self, size: int, *, native: bool = _native is not None) -> None:
        if size < 1:
            raise ValueError(f"size is {size}: it must be at least 1")
        self.size = size
        self._native = native
        self._leaves = 1 << (size - 1).bit_length()
        self._nodes = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """The sum of all masses."""
        return float(self._nodes[1])

    def masses(self, index: np.ndarray | slice = slice(None)) -> np.ndarray:
        """``[M] float64``: a copy of these numbers' masses."""
        return self._nodes[self._leaves : self._leaves + self.size][index].copy()

    def set(self, index: np.ndarray, mass: np.ndarray) -> None:
        """Give ``index [M] int64`` the masses ``mass [M]``; of equal indices the last one's stands.

        Raises:
            ValueError: a mass is negative or not finite, an index is out of range, or their shapes differ.
        """
        index, mass = np.ascontiguousarray(index, np.int64), np.ascontiguousarray(mass, np.float64)
        if index.shape != mass.shape or index.ndim != 1:
            raise ValueError(f"index is {list(index.shape)} and mass {list(mass.shape)}: both must be [M]")
        if not len(index):
            return
        if not (np.isfinite(mass).all() and (mass >= 0).all()):
            wrong = mass[~(np.isfinite(mass) & (mass >= 0))][0]
            raise ValueError(f"a mass is {wrong}: masses must be finite and at least 0")
        if index.min() < 0 or index.max() >= self.size:
            wrong = index[(index < 0) | (index >= self.size)][0]
            raise ValueError(f"an index is {wrong}: it must be in 0..{self.size - 1}")
        if self._native:
            _native.set_masses(self._nodes.ctypes.data, self._leaves, index.ctypes.data, mass.ctypes.data, len(index))
            return
        nodes = self._leaves + index
        self._nodes[nodes] = mass
        while (nodes := np.unique(nodes >> 1))[0]:
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def find(self, place: np.ndarray) -> np.ndarray:
        """``[M] int64``: in whose stretch each place lies, where all masses lie end to end from 0 to `total`.

        A number without mass is never found.

        Raises:
            ValueError: no number has any mass, or a place is not in ``[0, total]``.
        """
        place = np.ascontiguousarray(place, np.float64)
        if not self.total > 0:
            raise ValueError("all masses are 0: there is nothing to find")
        if not ((place >= 0) & (place <= self.total)).all():
            raise ValueError(f"places go from {place.min()} to {place.max()}: they must be in 0..{self.total}")
        if self._native:
            index = np.empty(place.shape, np.int64)
            _native.find_masses(self._nodes.ctypes.data, self._leaves, place.ctypes.data, index.ctypes.data, place.size)
            return index
        node, left = np.ones(place.shape, np.int64), place.copy()
        while node.size and node.flat[0] < self._leaves:
            before = self._nodes[2 * node]
            # Where rounding leaves a place beyond all mass, the last number that has any is found.
            right = (left >= before) & (self._nodes[2 * node + 1] > 0)
            left -= np.where(right, before, 0.0)
            node = 2 * node + right
        return node - self._leaves
