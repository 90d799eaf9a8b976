"""What a simulation's page and picture have in common: scores over virtual time, and how much of it is shown close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from .curves import POINTS, Curve, spread_of
from .gantt import MOST_IN_A_ROW, by_client, round_down, some_of, window_of
from .svg import STYLES, Series

if TYPE_CHECKING:
    from ..federation.simulation import SimulatedRun

_IN_A_ROW = 2 * MOST_IN_A_ROW
"""So many pieces of the fastest client show little of themselves, and so much of the slowest."""
_PIECES, _LONG_PIECES = 6, 2
"""Pieces of the reference that a Gantt chart has room for, one after the other: middling ones, and the longest."""


def by_speeds(runs: Sequence[SimulatedRun]) -> dict[str, list[SimulatedRun]]:
    """The runs under each distribution of speeds, in the order of the first ones."""
    of: dict[str, list[SimulatedRun]] = {}
    for run in runs:
        of.setdefault(run.key.speeds, []).append(run)
    return of


def coloured(styles: Mapping[str, int]) -> dict[str, int]:
    """The strategies that a chart of lines has a look for, the first ones: more could not be told apart."""
    return {strategy: style for strategy, style in styles.items() if style < STYLES}


def left_out(styles: Mapping[str, int]) -> str:
    """A sentence on strategies that have no line; empty where all have one."""
    names = list(styles)[STYLES:]
    return f"Without {', '.join(names)}: the first {STYLES} strategies have lines." if names else ""


def score_series(runs: Sequence[SimulatedRun], styles: dict[str, int], points: int = POINTS) -> list[Series]:
    """Each strategy's score over time, over seeds; where a run has ended its last score is held for the others."""
    series = []
    for strategy, style in styles.items():
        curves = [
            Curve(*np.array(run.curve, np.float64).T) for run in runs if run.key.strategy == strategy and run.curve
        ]
        end = max((float(curve.seconds[-1]) for curve in curves), default=0.0)
        held = [Curve(np.append(curve.seconds, end), np.append(curve.value, curve.value[-1])) for curve in curves]
        if (spread := spread_of(held, points)) is not None:
            series.append(Series(strategy, spread, style))
    return series


def gantt_end(runs: Sequence[SimulatedRun], reference: str) -> float | None:
    """Virtual seconds that Gantt charts of these runs have room for; None where no run has spans."""
    timed = {run.key.strategy: run.spans for run in runs if run.spans}
    if not timed:
        return None
    pieces = [
        span.arrived - span.begun
        for span in timed.get(reference, next(iter(timed.values())))
        if span.arrived is not None
    ]
    wanted = max(_PIECES * median(pieces), _LONG_PIECES * max(pieces)) if pieces else max(run.seconds for run in runs)
    drawn = min(window_of(some_of(by_client(spans)), _IN_A_ROW) for spans in timed.values())
    end = min(1.1 * wanted, drawn, max(run.seconds for run in runs))
    return round_down(end) if end > 0 else None
