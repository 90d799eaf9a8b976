"""A simulation as one picture: an SVG file that needs nothing else and reads in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from .files import GENERATOR
from .gantt import by_client, gantt_of, in_order_of, some_of
from .html import templates
from .simulation_curves import by_speeds, coloured, gantt_end, left_out, score_series
from .svg import STYLES, lines_of

if TYPE_CHECKING:
    from ..federation.simulation import SimulatedRun

_WIDTH, _MARGIN, _GAP = 880.0, 16.0, 12.0
_TOP, _LINE, _TITLE = 52.0, 20.0, 30.0
_CURVES_HEIGHT = 230.0
_LETTER, _NOTE = 7.5, 17.0
_MOST_CLIENTS = 16
_PANELS_IN_A_ROW = 3
_POINTS = 120


@dataclass(frozen=True)
class _Entry:
    label: str
    style: int
    x: float
    y: float


@dataclass(frozen=True)
class _Panel:
    title: str
    x: float
    y: float
    parts: Markup


def simulation_svg(
    name: str,
    runs: Sequence[SimulatedRun],
    reference: str,
    target: float | None,
    *,
    against: str = "fedavg",
    speeds: str | None = None,
) -> str:
    """Scores over virtual time under each distribution of speeds, over who worked when with two of the strategies.

    Args:
        name: of the federation's config.
        runs: all of the simulation's.
        reference: the strategy of the first Gantt chart.
        target: where a level line lies; None: nowhere.
        against: the strategy of the second Gantt chart, where it has spans.
        speeds: the distribution that both are of; None: the last.
    """
    styles = {strategy: style for style, strategy in enumerate(dict.fromkeys(run.key.strategy for run in runs))}
    lines = coloured(styles)
    legend = _legend(lines)
    top = legend[-1].y + 14.0
    curves, below = _curve_panels(by_speeds(runs), lines, target, top)
    gantts, bottom = _gantt_panels(by_speeds(runs), styles, [reference, against], speeds, below)
    seeds = len({run.key.seed for run in runs})
    notes = ["Lines are means over seeds, bands reach from the lowest to the highest."] if seeds > 1 else []
    notes += [left_out(styles)] if left_out(styles) else []
    if gantts:
        notes.append("Bars are work, light ones its result's wait. An upright line is a commit, over those in it.")
    return (
        templates()
        .get_template("simulation.svg.jinja")
        .render(
            title=f"{name}: score of the global model over virtual time",
            width=f"{_WIDTH:g}",
            height=f"{bottom + _NOTE * len(notes) + _MARGIN / 2:g}",
            legend=legend,
            panels=[*curves, *gantts],
            notes=[(bottom + _NOTE * index, note) for index, note in enumerate(notes, 1)],
            styles=STYLES,
            generator=GENERATOR,
        )
    )


def _legend(styles: dict[str, int]) -> list[_Entry]:
    entries: list[_Entry] = []
    x, y = _MARGIN, _TOP
    for strategy, style in styles.items():
        width = 30.0 + _LETTER * len(strategy) + 18.0
        if entries and x + width > _WIDTH - _MARGIN:
            x, y = _MARGIN, y + _LINE
        entries.append(_Entry(strategy, style, x, y))
        x += width
    return entries


def _curve_panels(
    by: dict[str, list[SimulatedRun]], styles: dict[str, int], target: float | None, top: float
) -> tuple[list[_Panel], float]:
    """The panels, and where what is under them begins."""
    across = min(len(by), _PANELS_IN_A_ROW)
    width = (_WIDTH - 2 * _MARGIN - _GAP * (across - 1)) / across
    panels = []
    for index, (speeds, runs) in enumerate(by.items()):
        down, along = divmod(index, across)
        levels = [(target, f"target {target:g}")] if target is not None else []
        series = score_series(runs, styles, _POINTS)
        parts = lines_of(series, x_label="virtual seconds", levels=levels, width=width, height=_CURVES_HEIGHT)
        x, y = _MARGIN + along * (width + _GAP), top + down * (_CURVES_HEIGHT + _TITLE)
        panels.append(_Panel(f"{speeds} speeds", x, y, Markup("").join(parts)))
    rows = -(-len(by) // across)
    return panels, top + rows * (_CURVES_HEIGHT + _TITLE)


def _gantt_panels(
    by: dict[str, list[SimulatedRun]], styles: dict[str, int], names: list[str], speeds: str | None, top: float
) -> tuple[list[_Panel], float]:
    """The panels, and where they end."""
    where = speeds or list(by)[-1]
    timed = {run.key.strategy: run for run in by[where] if run.spans and run.key.strategy in names}
    end = gantt_end(list(timed.values()), names[0])
    if end is None:
        return [], top
    width = (_WIDTH - 2 * _MARGIN - _GAP) / 2
    order = list(by_client(next(iter(timed.values())).spans))
    panels, heights = [], [0.0]
    for along, (name, run) in enumerate(timed.items()):
        clients = some_of(in_order_of(by_client(run.spans), order), _MOST_CLIENTS)
        parts, height = gantt_of(clients, end=end, style=styles[name], x_label="virtual seconds", width=width)
        title = f"who worked when: {name}, {where} speeds"
        panels.append(_Panel(title, _MARGIN + along * (width + _GAP), top, Markup("").join(parts)))
        heights.append(height)
    return panels, top + max(heights) + _TITLE
