"""Strategies compared by the time that they take to a target score, relative to one of them, seed by seed.

A ratio is of two runs with the same seed, so of the same clients, data and speeds; over seeds ratios are averaged
geometrically, so that a strategy compared with itself is at 1 and one that is twice as fast as another is at half of it
whichever is the reference. A run that never reached the target has no time: a strategy with such a run has no mean, and
is told by a bound instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .simulation import SimulatedRun

_ALIKE = 1e-9
"""Means that differ by no more than rounding are a tie."""


@dataclass(frozen=True)
class Row:
    """One strategy, over seeds. Times are virtual seconds.

    Attributes:
        strategy: its name.
        runs: seeds.
        reached: in how many of them the target was reached.
        rank: 1 for the fastest; those that tie have the same. None where there is no mean.
        ratio: geometric mean of the time to the target relative to the reference's; None where a run of either did not
            reach it.
        ratio_low, ratio_high: the least and the largest of the seeds' ratios, where there is a mean.
        at_least: bound on the mean from below, with the length of a run for the time that it did not reach the target
            in. None where there is a mean, or where the reference did not reach the target in every run.
        seconds: geometric mean of the time to the target; None where a run did not reach it.
        seconds_low, seconds_high: the least and the largest time, where there is a mean.
        score: of the last version, mean.
        staleness: in versions, mean over runs that applied something.
        utilisation: share of the clients' time that they worked, mean.
        versions, updates, local_steps, dropped: mean.
    """

    strategy: str
    runs: int
    reached: int
    rank: int | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    at_least: float | None
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    score: float
    staleness: float | None
    utilisation: float | None
    versions: float
    updates: float
    local_steps: float
    dropped: float


def relative_times(runs: Sequence[SimulatedRun], reference: str) -> list[Row]:
    """A row for each strategy, in the order of their first runs.

    Args:
        runs: under one distribution of speeds, every strategy with the same seeds.
        reference: the strategy whose time is 1.

    Raises:
        ValueError: the runs cannot be compared: the reference is not among them, a run is there twice, a strategy lacks
            a seed, or they are of different distributions of speeds.
    """
    of = _by_strategy(runs)
    if reference not in of:
        raise ValueError(f"reference is {reference}, and there are runs of {', '.join(of) or 'nothing'}: name one")
    for strategy, own in of.items():
        if own.keys() != of[reference].keys():
            raise ValueError(
                f"{strategy} has runs with the seeds {sorted(own)} and {reference} with {sorted(of[reference])}: "
                "strategies are compared seed by seed"
            )
    rows = [_row(strategy, own, of[reference]) for strategy, own in of.items()]
    return [replace(row, rank=_rank(row, rows)) for row in rows]


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one value, none negative; 0 where one is."""
    return math.exp(math.fsum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0


def _by_strategy(runs: Sequence[SimulatedRun]) -> dict[str, dict[int, SimulatedRun]]:
    of: dict[str, dict[int, SimulatedRun]] = {}
    for run in runs:
        if run.key.speeds != runs[0].key.speeds:
            raise ValueError(f"runs are under the speeds {runs[0].key.speeds} and {run.key.speeds}: compare each apart")
        own = of.setdefault(run.key.strategy, {})
        if run.key.seed in own:
            raise ValueError(f"{run.key.strategy} has the seed {run.key.seed} twice")
        own[run.key.seed] = run
    return of


def _row(strategy: str, own: Mapping[int, SimulatedRun], reference: Mapping[int, SimulatedRun]) -> Row:
    runs = list(own.values())
    times = [run.target_seconds for run in runs if run.target_seconds is not None]
    whole = len(times) == len(runs)
    bounds = _ratios(own, reference)
    ratios = bounds if whole else None
    staleness = [run.staleness for run in runs if run.staleness is not None]
    utilisation = [run.utilisation for run in runs if run.utilisation is not None]
    return Row(
        strategy=strategy,
        runs=len(runs),
        reached=len(times),
        rank=None,
        ratio=geometric_mean(ratios) if ratios else None,
        ratio_low=min(ratios) if ratios else None,
        ratio_high=max(ratios) if ratios else None,
        at_least=geometric_mean(bounds) if bounds and not whole else None,
        seconds=geometric_mean(times) if whole else None,
        seconds_low=min(times) if whole else None,
        seconds_high=max(times) if whole else None,
        score=_mean([run.score for run in runs]),
        staleness=_mean(staleness) if staleness else None,
        utilisation=_mean(utilisation) if utilisation else None,
        versions=_mean([run.versions for run in runs]),
        updates=_mean([run.updates for run in runs]),
        local_steps=_mean([run.local_steps for run in runs]),
        dropped=_mean([run.dropped for run in runs]),
    )


def _ratios(own: Mapping[int, SimulatedRun], reference: Mapping[int, SimulatedRun]) -> list[float] | None:
    """By seed: the times' ratio, for a run that did not reach the target a bound from below; None: none is known."""
    ratios = []
    for seed, run in own.items():
        time = run.seconds if run.target_seconds is None else run.target_seconds
        base = reference[seed].target_seconds
        if base is None or (base == 0 and time > 0):
            return None
        ratios.append(1.0 if time == base else time / base)
    return ratios


def _rank(row: Row, rows: Sequence[Row]) -> int | None:
    if row.seconds is None:
        return None
    known = [other.seconds for other in rows if other.seconds is not None]
    return 1 + sum(other < row.seconds and not math.isclose(other, row.seconds, rel_tol=_ALIKE) for other in known)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
