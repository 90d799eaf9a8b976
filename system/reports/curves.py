"""Curves over training time: one run's figure, and its spread over several runs.

T rows of metrics, R runs, P points of a time grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

POINTS = 240
"""More than a chart of a phone's width can show apart."""


def number(figures: Mapping[str, Any], name: str) -> float | None:
    """A figure read from JSON, None where it is missing, null, no number or not finite."""
    value = figures.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


_ALIKE = 0.95
"""Runs of which the shortest is this share of the longest are of one length."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A figure of one run.

    Attributes:
        seconds: ``[T]`` of training, not falling.
        value: ``[T]``.
    """

    seconds: Floats
    value: Floats


@dataclass(frozen=True, eq=False)
class Spread:
    """A figure over runs, at the points where at least one has a value.

    Attributes:
        seconds: ``[P]``.
        mean: ``[P]``, over the runs that had come so far.
        low: ``[P]``, the lowest of them.
        high: ``[P]``, the highest.
        runs: R.
    """

    seconds: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


def curve_of(rows: Sequence[Mapping[str, Any]], name: str) -> Curve | None:
    """The figure ``name`` in rows of metrics; None where no row has it together with its time."""
    points = [
        (seconds, value)
        for row in rows
        if (seconds := number(row, "seconds")) is not None and (value := number(row, name)) is not None
    ]
    if not points:
        return None
    seconds, values = np.array(points, np.float64).T
    return Curve(np.maximum.accumulate(seconds), values)


def held_at(curve: Curve, seconds: Floats) -> Floats:
    """The newest value ``[P]`` at each time ``[P]``; NaN before the curve's first time and after its last."""
    newest = np.searchsorted(curve.seconds, seconds, side="right") - 1
    within = (newest >= 0) & (seconds <= curve.seconds[-1])
    return np.where(within, curve.value[np.maximum(newest, 0)], np.nan)


def spread_of(curves: Sequence[Curve], points: int = POINTS) -> Spread | None:
    """Mean, lowest and highest over runs on an even grid of ``points`` times; None where there are no curves.

    It begins where all runs have values, and ends with the longest run, or with the shortest where they are of about
    one length: a mean over fewer and fewer runs would jump at its end for no reason.
    """
    if not curves:
        return None
    ends = [float(curve.seconds[-1]) for curve in curves]
    begin = min(max(float(curve.seconds[0]) for curve in curves), min(ends))
    end = min(ends) if min(ends) >= _ALIKE * max(ends) else max(ends)
    grid = np.linspace(begin, end, points)
    values = np.stack([held_at(curve, grid) for curve in curves])
    known = ~np.isnan(values).all(0)
    values, grid = values[:, known], grid[known]
    return Spread(grid, np.nanmean(values, 0), np.nanmin(values, 0), np.nanmax(values, 0), len(curves))
