"""What Atari scores come to beside human testers', over the runs of one game and over games."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..actors.aggregate_scores import (
    Statistic,
    interquartile_mean,
    mean_over_tasks,
    median_over_tasks,
    stratified_estimate,
)
from ..actors.environments.atari_scores import human_normalised, reference_scores
from ..learners.randomness import stream

_STATISTICS: Mapping[str, Statistic] = {
    "iqm": interquartile_mean,
    "mean": mean_over_tasks,
    "median": median_over_tasks,
}


def human_normalised_figures(
    games: Sequence[str], returns: Sequence[np.ndarray], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """Human-normalised figures of runs.

    Args:
        games: of each run, in ALE's names.
        returns: ``[E]`` of each run's episodes, unclipped.
        figures: of one game, ``evaluation_return`` with ``_low, _high``; unused of several.

    Returns:
        Of one game ``human_normalised`` with ``_low, _high`` (95 % interval over episodes). Of several games
        ``games``, the mean return of each, and ``games_human_normalised``. Of several runs
        ``human_normalised_iqm``, ``_mean`` and ``_median``, over runs and games, each with ``_low, _high`` (95 %
        interval over runs). What has no reference is left out: games without one are ``games_without_reference``.

    Raises:
        ValueError: games have different numbers of runs.
    """
    runs: dict[str, list[float]] = {}
    for game, played in zip(games, returns, strict=True):
        runs.setdefault(game, []).append(float(played.mean(dtype=np.float64)))
    numbers = {game: len(scores) for game, scores in runs.items()}
    if len(set(numbers.values())) > 1:
        raise ValueError(f"games have different numbers of runs, {numbers}: evaluate as many seeds of each game")
    known = {game: human_normalised(game, scores) for game, scores in runs.items() if game in reference_scores()}
    told: dict[str, Any] = {}
    if lacking := [game for game in runs if game not in known]:
        told["games_without_reference"] = lacking
    if len(runs) > 1:
        told["games"] = {game: float(np.mean(scores)) for game, scores in runs.items()}
        told["games_human_normalised"] = {game: float(scores.mean()) for game, scores in known.items()}
    elif known:
        ends = {"human_normalised" + end: figures["evaluation_return" + end] for end in ("", "_low", "_high")}
        told |= {name: float(human_normalised(games[0], value)) for name, value in ends.items()}
    if known and len(games) > 1:
        told |= _aggregates(np.stack(list(known.values()), axis=1))
    return told


def _aggregates(scores: np.ndarray) -> dict[str, float]:
    told = {}
    for name, statistic in _STATISTICS.items():
        estimate = stratified_estimate(statistic, scores, stream(0, "bootstrap over runs"))
        told[f"human_normalised_{name}"] = estimate.value
        told[f"human_normalised_{name}_low"] = estimate.low
        told[f"human_normalised_{name}_high"] = estimate.high
    return told
