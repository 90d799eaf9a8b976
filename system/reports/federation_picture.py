"""Federations' scores over time as a picture of its own: an SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from .curves import spread_of
from .federation_data import FederationRun, score_curve
from .federation_groups import group_federations
from .picture import curves_picture
from .svg import STYLES, Series


def draw_scores(runs: Sequence[FederationRun]) -> str:
    """Scores of the global models against run seconds, as the text of an SVG file.

    Args:
        runs: at least one. Those that differ in their seeds alone are one line with their spread.

    Raises:
        ValueError: none has been evaluated yet.
    """
    groups = group_federations(runs)
    series = []
    for group in groups:
        curves = [curve for run in group.runs if (curve := score_curve(run)) is not None]
        if (spread := spread_of(curves)) is not None:
            series.append(Series(group.label, spread, group.style % STYLES))
    targets = sorted({group.target for group in groups if group.target is not None})
    names = dict.fromkeys(str(group.settings.get("name", "federation")) for group in groups)
    return curves_picture(
        f"{', '.join(names)}: score of the global model",
        series,
        x_label="run seconds",
        levels=[(target, f"target {target:g}") for target in targets],
    )
