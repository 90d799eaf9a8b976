"""Scores over several runs and tasks in one number, with an interval that says how far it hangs on the runs.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice". R is the number of
runs of a task, G of tasks (games).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

ScoreMatrix: TypeAlias = npt.NDArray[np.floating[Any]]
Statistic: TypeAlias = Callable[[ScoreMatrix], npt.NDArray[np.float64]]
"""From scores ``[..., R, G]`` to a number for each ``[...]``."""

_LEVEL = 0.95
_RESAMPLES = 9_999
_AT_ONCE = 2**22
"""Resampled scores in memory: 32 MiB of float64."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ScoreMatrix) -> npt.NDArray[np.float64]:
    """The mean of the middle half of all R x G scores; of what does not divide by four, less is cut off (IQM).

    It heeds more scores than the median does, and is not moved by one game that goes far beyond the others.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1).astype(np.float64), axis=-1)
    cut = flat.shape[-1] // 4
    middle: npt.NDArray[np.float64] = flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)
    return middle


def mean_over_tasks(scores: ScoreMatrix) -> npt.NDArray[np.float64]:
    """The mean of the tasks' means."""
    mean: npt.NDArray[np.float64] = scores.astype(np.float64).mean(axis=(-2, -1))
    return mean


def median_over_tasks(scores: ScoreMatrix) -> npt.NDArray[np.float64]:
    """The median of the tasks' means."""
    return np.asarray(np.median(scores.astype(np.float64).mean(axis=-2), axis=-1))


def stratified_estimate(statistic: Statistic, scores: ScoreMatrix, generator: np.random.Generator) -> Estimate:
    """A statistic of ``scores [R, G]`` with its stratified percentile bootstrap interval.

    Each task's R scores are drawn anew among themselves (Agarwal et al. 2021, section 3), as the tasks are given and
    the runs are a sample. The interval of few runs is too narrow, by ``sqrt((R - 1) / R)`` where the statistic is a
    mean.

    Args:
        statistic: such as `interquartile_mean`.
        scores: of R runs, at least one, of each of G tasks. A single run has an interval without width.
        generator: of the resamples.

    Raises:
        ValueError: scores are not ``[R, G]``, there are none, or one is not finite.
    """
    if scores.ndim != 2 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(f"scores are {scores.dtype}{list(scores.shape)}: they must be [R, G], R, G >= 1, and finite")
    runs, tasks = scores.shape
    columns = np.arange(tasks)
    chunk = max(1, _AT_ONCE // scores.size)
    drawn = np.concatenate(
        [
            statistic(scores[generator.integers(runs, size=(min(chunk, _RESAMPLES - done), runs, tasks)), columns])
            for done in range(0, _RESAMPLES, chunk)
        ]
    )
    low, high = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(float(statistic(scores)), float(low), float(high))
