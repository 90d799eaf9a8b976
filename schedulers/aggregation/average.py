"""Averages of a commit's updates: the weighted sum of changes, and pooled values of what is measured or counted.

Sums are in float64. Over 1,000 updates of a float32 model, sums in float32 give 60 % of the next model's numbers
another last bit than exact sums do, sums in float64 one in 10,000. What that costs is memory traffic: so sums are made
block by block in the processor's cache, and go to memory, at twice the model's size, only once for every few updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from .tensors import AverageKind, Tensors, check_layout, variances_with_means

BLOCK = 262_144
"""Numbers that are worked on at a time: 2 MiB in float64, so that what lies between two operations stays in the
processor's cache, and enough that threads seldom wait for each other between two operations."""

_HELD = 4
"""Updates that are added up at once."""

Reader: TypeAlias = Callable[[slice], np.ndarray]
"""Gives the numbers of a slice of a flat tensor, in float64. The array is for one's own use, until the next call."""

Change: TypeAlias = Callable[[], Reader]
"""The change of a tensor: a new reader of it at each call, for as many threads as like to read it at once."""


@dataclass(frozen=True)
class Combined:
    """What a commit's updates come to.

    Attributes:
        changes: by name, of each ``mean`` tensor: the change of the model, to be read slice by slice.
        values: by name, of each other tensor: its next value, in float64 or in the model's integer dtype.
    """

    changes: dict[str, Change]
    values: dict[str, np.ndarray]


class Average(Protocol):
    """How updates are combined."""

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        ...

    @property
    def most_updates(self) -> int | None:
        """That a commit may hold; None: any number, for it holds a few in memory at a time."""
        ...

    def of(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> Combined:
        """Combine a commit's updates, in their order. Raises ValueError as `ServerRule.apply`."""
        ...


class WeightedSum:
    """Changes add up, each times its weight: ``sum_k w_k d_k``. With weights that sum to 1 it is FedAvg's mean.

    McMahan et al. 2017 (https://arxiv.org/abs/1602.05629), algorithm 1. At most five updates are in memory at a time.
    The sums do not hang on how many: each number's products are added up in the commit's order. Statistics are pooled,
    see `pooled_into`. Of an integer tensor the greatest value is taken, the old one's among them: it counts (batches
    seen by a normalisation, steps), so a fraction of it means nothing, and division would make it shrink from round to
    round. The greatest is the longest history that went into the model, and does not hang on order or on how clients
    are grouped into commits.
    """

    least_updates = 1
    most_updates = None

    def of(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> Combined:
        """Combine a commit's updates, in their order. Raises ValueError as `ServerRule.apply`."""
        sums = _Sums([name for name, kind in kinds.items() if kind == "mean"])
        counts = {name: model[name].copy() for name, kind in kinds.items() if kind == "integer"}
        variances = variances_with_means(kinds)
        pools = {
            name: _Pool(model[name].shape)
            for name, kind in kinds.items()
            if kind == "statistic" and name not in variances
        }
        spread_of = {mean: name for name, mean in variances.items()}
        total, count = 0.0, 0
        for update, weight in updates:
            check_layout(update, model)
            total, count = total + checked_weight(weight), count + 1
            sums.take(update, weight)
            for name, pool in pools.items():
                pool.take(update[name], update[spread_of[name]] if name in spread_of else None, weight)
            for name, greatest in counts.items():
                np.maximum(greatest, update[name], out=greatest)
            del update  # Else it would stay until the next one is there.
        check_count(count, self)
        changes = {name: sums.change_of(name) for name in sums.names}
        pooled = {name: pool.mean for name, pool in pools.items()}
        pooled |= {name: pools[mean].variance for name, mean in variances.items()}
        return Combined(changes, {**pooled_into(model, pooled, variances, total), **counts})


def pooled_into(
    model: Tensors, pooled: Mapping[str, np.ndarray], variances: Mapping[str, str], total: float
) -> dict[str, np.ndarray]:
    """What becomes of the model's statistics: ``(1 - a) old + a pooled``, where a is ``min(1, total)``.

    So statistics keep step with the parameters: a commit of all clients replaces them, a lone client's with weight
    alpha moves them by alpha. Variances that come with their mean mix by the law of total variance, which adds
    ``a (1 - a) (old mean - pooled mean)^2``: the result is the variance of a mixture, and never below 0.

    Args:
        model: the old one.
        pooled: the updates' statistics by name, in float64.
        variances: as `variances_with_means` gives them.
        total: sum of the weights.
    """
    share = min(1.0, total)
    mixed = {name: (1.0 - share) * np.float64(model[name]) + share * value for name, value in pooled.items()}
    for name, mean in variances.items():
        between = share * (1.0 - share) * np.square(np.float64(model[mean]) - pooled[mean])
        mixed[name] = np.maximum(mixed[name] + between, 0.0)
    return mixed


def checked_weight(weight: float) -> float:
    """The weight. Raises ValueError for one that is negative or not finite."""
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"weight of an update is {weight}: it must be finite and at least 0")
    return weight


def check_count(count: int, average: Average) -> None:
    """Raise ValueError where a commit holds fewer updates than its average needs."""
    if count < average.least_updates:
        raise ValueError(
            f"commit holds {count} updates: {type(average).__name__} needs at least {average.least_updates}; "
            "commit larger groups or take another average"
        )


def blocks(size: int, length: int = BLOCK, *, start: int = 0) -> Iterator[slice]:
    """Slices that cover the numbers from ``start`` to ``size``."""
    for first in range(start, size, length):
        yield slice(first, min(first + length, size))


def whole(change: np.ndarray) -> Change:
    """A change that is there as one array in float64."""
    flat = change.reshape(-1)

    def numbers(block: slice) -> np.ndarray:
        return flat[block].copy()

    return lambda: numbers


class _Sums:
    """Weighted sums of changes; the last few updates are held, and added to the totals of those before when asked."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._totals: dict[str, np.ndarray] = {}
        self._held: list[tuple[dict[str, np.ndarray], float]] = []

    def take(self, update: Tensors, weight: float) -> None:
        if len(self._held) == _HELD:
            self._totals = {name: self._total_of(name) for name in self.names}
            self._held = []
        self._held.append(({name: np.ascontiguousarray(update[name]).reshape(-1) for name in self.names}, weight))

    def change_of(self, name: str) -> Change:
        parts = [(update[name], weight) for update, weight in self._held]
        if name in self._totals:
            parts.insert(0, (self._totals[name], 1.0))
        (first, first_weight), *others = parts

        def reader() -> Reader:
            sums, products = np.empty((2, min(BLOCK, first.size)))

            def numbers(block: slice) -> np.ndarray:
                into, product = (row[: block.stop - block.start] for row in (sums, products))
                # Conversion apart from multiplication takes numpy less time than both in one call.
                np.copyto(into, first[block])
                into *= first_weight
                for flat, weight in others:
                    np.copyto(product, flat[block])
                    product *= weight
                    into += product
                return into

            return numbers

        return reader

    def _total_of(self, name: str) -> np.ndarray:
        change = self.change_of(name)()
        total = self._totals[name] if name in self._totals else np.empty(self._held[0][0][name].size)
        for block in blocks(total.size):
            total[block] = change(block)
        return total


class _Pool:
    """Weighted mean of values and the variance of all measurements behind them, one value at a time.

    West 1979 (https://doi.org/10.1145/359146.359153): no difference of large sums is taken. By the law of total
    variance the variance is the mean of those within, plus that of the means. It is exact for variances that divide by
    n; torch's ``running_var`` divides by n - 1.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean = np.zeros(shape)
        self._scatter = np.zeros(shape)
        self._total = 0.0

    def take(self, value: np.ndarray, variance: np.ndarray | None, weight: float) -> None:
        if weight == 0:
            return
        self._total += weight
        away = np.float64(value) - self.mean
        self.mean = self.mean + away * (weight / self._total)
        if variance is not None:
            self._scatter = self._scatter + weight * (np.float64(variance) + away * (np.float64(value) - self.mean))

    @property
    def variance(self) -> np.ndarray:
        return self._scatter / self._total if self._total else self._scatter
