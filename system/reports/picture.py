"""Learning curves as a picture of its own: an SVG file that needs nothing else and reads in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ..metrics.recorder import EVALUATION_RETURN
from .curves import curve_of, spread_of
from .files import GENERATOR
from .groups import by_task, group_runs
from .html import templates
from .results import fixed
from .run_data import RunData
from .svg import STYLES, Series, lines_of

_WIDTH, _CHART_HEIGHT = 720.0, 340.0
_HEAD, _ENTRY = 40.0, 20.0


def draw_curves(runs: Sequence[RunData], rivals: Mapping[str, float]) -> str:
    """The validation return of runs that play the same, against training time, as the text of an SVG file.

    Args:
        runs: at least one. Those that differ in their seeds alone are one line with their spread.
        rivals: mean returns of players that do not learn, by their name: a level line each.

    Raises:
        ValueError: the runs do not play the same, or none has been evaluated yet.
    """
    groups = group_runs(runs)
    if len(tasks := by_task(groups)) > 1:
        names = " and ".join(task[0].task for task in tasks)
        raise ValueError(f"runs play {names}, or the same with other settings: name runs whose returns compare")
    series = []
    for group in groups:
        curves = [curve for run in group.runs if (curve := curve_of(run.rows, EVALUATION_RETURN.name)) is not None]
        if (spread := spread_of(curves)) is not None:
            series.append(Series(group.label, spread, group.style % STYLES))
    levels = [(value, f"{name} {fixed(value, 2)}") for name, value in rivals.items()]
    return curves_picture(
        f"{groups[0].task}: mean return on the validation set", series, x_label="seconds of training", levels=levels
    )


def curves_picture(
    title: str, series: Sequence[Series], *, x_label: str, levels: Sequence[tuple[float, str]] = ()
) -> str:
    """The text of an SVG file of lines, their names above them.

    Args:
        title: above all.
        series: of runs that have been evaluated.
        x_label: under the axis.
        levels: where level lines lie, and their texts.

    Raises:
        ValueError: there are no lines.
    """
    if not series:
        raise ValueError("no run has been evaluated yet: there is no curve to draw")
    top = _HEAD + _ENTRY * len(series)
    lines = lines_of(series, x_label=x_label, levels=levels, width=_WIDTH - 16, height=_CHART_HEIGHT)
    return (
        templates()
        .get_template("curves.svg.jinja")
        .render(
            title=title,
            width=f"{_WIDTH:g}",
            height=f"{top + _CHART_HEIGHT:g}",
            top=f"{top:g}",
            series=series,
            lines=Markup("").join(lines),
            styles=STYLES,
            generator=GENERATOR,
        )
    )
