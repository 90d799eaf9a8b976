"""Prioritised sampling: what surprised the learner is seen again sooner. M is a number of slots, B of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...kernels.sum_tree import SumTree

_LEAST = 1e-6
"""Added to errors, so that nothing is never seen again; in units of the learner's error."""


class Priorities:
    """Proportional prioritisation: sampled in proportion to the size of the TD error, to a power.

    Schaul et al. 2016 (https://arxiv.org/abs/1511.05952), section 3.3. What is new has the greatest priority that there
    ever was, so that it is seen soon. Samples are stratified: one of each of B equal parts of the mass.

    Args:
        slots: of the ring.
        exponent: alpha, at least 0; 0 samples uniformly.
    """

    def __init__(self, slots: int, exponent: float) -> None:
        self._tree = SumTree(slots)
        self._exponent = exponent
        self._greatest = 1.0

    def add(self, slots: np.ndarray) -> None:
        """What is in ``slots [M]`` is new."""
        self._tree.set(slots, np.full(len(slots), self._greatest))

    def remove(self, slots: np.ndarray) -> None:
        """What is in ``slots [M]`` is sampled no more."""
        self._tree.set(slots, np.zeros(len(slots)))

    def update(self, slots: np.ndarray, error: np.ndarray) -> None:
        """What is in ``slots [M]`` had these TD errors ``[M]``. Raises ValueError where one is not finite."""
        if not len(slots):
            return
        mass = (np.abs(error.astype(np.float64)) + _LEAST) ** self._exponent
        self._tree.set(slots, mass)
        self._greatest = max(self._greatest, float(mass.max()))

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Slots ``[B] int64``, drawn with replacement."""
        place = (np.arange(count) + generator.random(count)) / count * self._tree.total
        return self._tree.find(np.minimum(place, self._tree.total))

    def weights(self, slots: np.ndarray, exponent: float) -> np.ndarray:
        """Importance weights ``[B] float32``, ``P(i)^-exponent``, in units of the batch's greatest.

        With exponent 1 they make up for the sampling in full. The number of transitions and the total mass are the same
        for all and go out of the ratio.
        """
        mass = self._tree.masses(slots)
        weights: np.ndarray = ((mass.min() / mass) ** exponent).astype(np.float32)
        return weights

    def state_dict(self, order: np.ndarray) -> dict[str, Any]:
        """The masses of the slots in this order, and the greatest there was."""
        return {"masses": self._tree.masses(order), "greatest": self._greatest}

    def load_state_dict(self, state: Mapping[str, Any], slots: np.ndarray) -> None:
        """Give ``slots``, oldest first, the newest masses of a state."""
        self._greatest = float(state["greatest"])
        if len(slots):
            self._tree.set(slots, np.asarray(state["masses"])[-len(slots) :])

    def check_valid(self, filled: np.ndarray) -> None:
        """Assert that just the ``filled`` slots have a mass."""
        masses = self._tree.masses()
        assert (masses[filled] > 0).all()
        assert np.count_nonzero(masses) == len(filled)
