"""Averages that a minority of hostile or broken clients cannot move far.

They look at all updates of a commit together, so these are in memory at once and their number is bounded. Each gives a
robust mean of the changes times the sum of the weights; a single weight means nothing to them, for a client could then
buy influence by the size of data that it claims. Statistics and counts are treated likewise, not as `WeightedSum` does:
the greatest count could be anybody's invention.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .average import Combined, blocks, check_count, checked_weight, pooled_into, whole
from .tensors import AverageKind, Tensors, check_layout, variances_with_means

_STACKED = 1 << 20
"""Numbers of all clients together that are stacked at a time: 8 MiB in float64."""


class _Robust:
    """What the robust averages share. A subclass says which updates count, and what the centre of numbers is."""

    least_updates: int

    def __init__(self, most_updates: int) -> None:
        if most_updates < self.least_updates:
            raise ValueError(f"most_updates is {most_updates}: it must be at least {self.least_updates}")
        self.most_updates = most_updates

    def _chosen(self, updates: Sequence[Tensors], kinds: Mapping[str, AverageKind]) -> Sequence[Tensors]:
        return updates

    def _centre(self, rows: np.ndarray) -> np.ndarray:
        """Of ``[clients, numbers] float64``: ``[numbers]``."""
        raise NotImplementedError

    def _rank(self, clients: int) -> int:
        """Which of the clients' counts in ascending order is taken."""
        raise NotImplementedError

    def of(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> Combined:
        """Combine a commit's updates. Raises ValueError as `ServerRule.apply`."""
        held, total = self._gather(model, updates)
        chosen = self._chosen(held, kinds)
        centres = {name: self._centre_of([update[name] for update in chosen]) for name in _named(kinds, "mean")}
        changes = {name: whole(total * centre) for name, centre in centres.items()}
        variances = variances_with_means(kinds)
        pooled = {
            name: self._centre_of([update[name] for update in chosen])
            for name in _named(kinds, "statistic")
            if name not in variances
        }
        for name, mean in variances.items():
            spreads = [update[name] + np.square(np.float64(update[mean]) - pooled[mean]) for update in chosen]
            pooled[name] = self._centre_of(spreads)
        counts = {}
        for name in _named(kinds, "integer"):
            ascending = np.sort(np.stack([update[name] for update in chosen]), axis=0)
            counts[name] = np.asarray(np.maximum(model[name], ascending[self._rank(len(chosen))]))
        return Combined(changes, {**pooled_into(model, pooled, variances, total), **counts})

    def _gather(self, model: Tensors, updates: Iterable[tuple[Tensors, float]]) -> tuple[list[Tensors], float]:
        held: list[Tensors] = []
        total = 0.0
        for update, weight in updates:
            if len(held) == self.most_updates:
                raise ValueError(
                    f"commit holds more than {self.most_updates} updates, the most_updates that "
                    f"{type(self).__name__} may have in memory at once: raise it or commit smaller groups"
                )
            check_layout(update, model)
            total += checked_weight(weight)
            held.append(update)
        check_count(len(held), self)
        return held, total

    def _centre_of(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        flat = [np.asarray(array).reshape(-1) for array in arrays]
        centre = np.empty(np.shape(arrays[0]))
        into = centre.reshape(-1)
        for block in blocks(into.size, max(1, _STACKED // len(flat))):
            into[block] = self._centre(np.stack([numbers[block] for numbers in flat], dtype=np.float64))
        return centre


class Median(_Robust):
    """The median of each number by itself. It holds against any minority.

    Yin et al. 2018 (https://arxiv.org/abs/1803.01498), definition 1. Of counts the lower median is taken.

    Args:
        most_updates: of a commit; more are an error.

    Raises:
        ValueError: ``most_updates`` is below 3.
    """

    least_updates = 3

    def __init__(self, most_updates: int = 100) -> None:
        super().__init__(most_updates)

    def _centre(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(rows, axis=0))

    def _rank(self, clients: int) -> int:
        return (clients - 1) // 2


class TrimmedMean(_Robust):
    """The mean of each number by itself, without the b smallest and the b largest. It holds against b clients.

    Yin et al. 2018 (https://arxiv.org/abs/1803.01498), definition 2. Of counts the largest that is left is taken.

    Args:
        trim: b, at least 1.
        most_updates: of a commit; more are an error.

    Raises:
        ValueError: ``trim`` is below 1, or ``most_updates`` below ``2 trim + 1``.
    """

    def __init__(self, trim: int, most_updates: int = 100) -> None:
        if trim < 1:
            raise ValueError(f"trim is {trim}: it must be at least 1, or nothing is trimmed")
        self.trim = trim
        self.least_updates = 2 * trim + 1
        super().__init__(most_updates)

    def _centre(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(np.sort(rows, axis=0)[self.trim : len(rows) - self.trim].mean(axis=0))

    def _rank(self, clients: int) -> int:
        return clients - 1 - self.trim


class Krum(_Robust):
    """The mean of the updates that lie nearest to their neighbours. It holds against f clients.

    Blanchard et al. 2017 (https://arxiv.org/abs/1703.02757), section 4: an update's score is the sum of its squared
    distances to the ``n - f - 2`` nearest others, over all ``mean`` tensors together. The update of the least score is
    taken, or the mean of the ``keep`` least (multi-Krum); of equal scores the earlier in the commit goes first.
    Distances are in float64, from inner products: time grows with clients squared, memory does not.

    Args:
        faulty: f, at least 0.
        keep: how many updates are kept; 1 is Krum itself.
        most_updates: of a commit; more are an error.

    Raises:
        ValueError: ``faulty`` is negative, ``keep`` below 1, or ``most_updates`` below what it needs:
            ``max(2 f + 3, f + keep)``.
    """

    def __init__(self, faulty: int, keep: int = 1, most_updates: int = 100) -> None:
        if faulty < 0 or keep < 1:
            raise ValueError(f"faulty is {faulty} and keep {keep}: they must be at least 0 and at least 1")
        self.faulty = faulty
        self.keep = keep
        self.least_updates = max(2 * faulty + 3, faulty + keep)
        super().__init__(most_updates)

    def _chosen(self, updates: Sequence[Tensors], kinds: Mapping[str, AverageKind]) -> Sequence[Tensors]:
        distances = _squared_distances([[update[name] for update in updates] for name in _named(kinds, "mean")])
        neighbours = len(updates) - self.faulty - 2
        # The nearest is the update itself, at distance 0.
        scores = np.sort(distances, axis=1)[:, : neighbours + 1].sum(axis=1)
        best = np.argsort(scores, kind="stable")[: self.keep]
        return [updates[index] for index in sorted(best)]

    def _centre(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows.mean(axis=0))

    def _rank(self, clients: int) -> int:
        return clients - 1


def _named(kinds: Mapping[str, AverageKind], wanted: AverageKind) -> list[str]:
    return [name for name, kind in kinds.items() if kind == wanted]


def _squared_distances(tensors: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Squared Euclidean distances between clients: ``[clients, clients] float64``, 0 on the diagonal.

    Args:
        tensors: for each tensor, the clients' arrays.
    """
    clients = len(tensors[0])
    products = np.zeros((clients, clients))
    with np.errstate(over="ignore", invalid="ignore"):
        for arrays in tensors:
            flat = [array.reshape(-1) for array in arrays]
            for block in blocks(flat[0].size, max(1, _STACKED // clients)):
                rows = np.stack([numbers[block] for numbers in flat], dtype=np.float64)
                products += rows @ rows.T
        norms = np.diag(products)
        distances = np.maximum(norms[:, None] + norms[None, :] - 2.0 * products, 0.0)
    # Whose numbers overflow is far from everybody.
    distances[np.isnan(distances)] = np.inf
    np.fill_diagonal(distances, 0.0)
    return distances
