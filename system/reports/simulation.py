"""What a simulation came to, as one HTML page: for each distribution of speeds a table, curves, and who worked when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..federation.comparison import Row, relative_times
from ..runs.checkpoints import installed_versions
from .bars import range_chart
from .comparison_table import comparison_table
from .files import write_report
from .gantt import MOST_CLIENTS, by_client, gantt_chart, in_order_of, some_of
from .html import render
from .page import Chart, Legend
from .results import Table
from .simulation_curves import by_speeds, coloured, gantt_end, left_out, score_series
from .simulation_picture import simulation_svg
from .svg import line_chart

if TYPE_CHECKING:
    from ..federation.simulation import SimulatedRun


@dataclass(frozen=True)
class SpeedsSection:
    """One distribution of speeds: the comparison, scores over time, and a Gantt chart of each strategy."""

    title: str
    table: Table
    curves: tuple[Chart, ...]
    gantts: tuple[Chart, ...]
    about: str


@dataclass(frozen=True)
class SimulationPage:
    """A simulation's report."""

    title: str
    sentence: str
    made: str
    legend: tuple[Legend, ...]
    sections: tuple[SpeedsSection, ...]


def write_simulation_report(
    name: str, runs: Sequence[SimulatedRun], reference: str, target: float | None, output: Path
) -> Path:
    """Write the page; where ``output`` ends in ``.svg`` the picture of `simulation_svg` alone.

    Args:
        name: of the federation's config.
        runs: all of the simulation's; with spans those of whom a Gantt chart is wanted.
        reference: the strategy that times are told relative to.
        target: score whose time is compared; None: there was none.
        output: the file.

    Raises:
        ValueError: the runs cannot be compared; see `relative_times`.
        ReportUnwritable: it cannot go there, or something that is no report stands there.
        OSError: the disk is full, ...
    """
    if output.suffix == ".svg":
        write_report(output, simulation_svg(name, runs, reference, target))
    else:
        write_report(output, render(build_simulation_page(name, runs, reference, target), "simulation.html.jinja"))
    return output


def build_simulation_page(
    name: str, runs: Sequence[SimulatedRun], reference: str, target: float | None
) -> SimulationPage:
    """Everything of the page but its looks."""
    styles = {strategy: style for style, strategy in enumerate(dict.fromkeys(run.key.strategy for run in runs))}
    compared = {speeds: relative_times(same, reference) for speeds, same in by_speeds(runs).items()}
    sections = [
        SpeedsSection(
            title=f"{speeds.capitalize()} speeds",
            table=comparison_table(speeds, compared[speeds], reference, target, coloured(styles)),
            curves=(_score_chart(same, styles, target), *_time_charts(compared[speeds], styles, reference)),
            gantts=tuple(_gantts(same, styles, reference)),
            about=_about_gantts(same),
        )
        for speeds, same in by_speeds(runs).items()
    ]
    version = installed_versions().get("isogon", "?")
    return SimulationPage(
        title=f"{name}: simulation",
        sentence=_sentence(compared, target),
        made=f"Made by isogon {version} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. All times are virtual seconds.",
        legend=tuple(Legend(strategy, style) for strategy, style in coloured(styles).items()),
        sections=tuple(sections),
    )


def _score_chart(runs: Sequence[SimulatedRun], styles: dict[str, int], target: float | None) -> Chart:
    caption = "The global model's score on the server's test data."
    if any(run.key.seed != runs[0].key.seed for run in runs):
        caption += " Lines are means over seeds, bands reach from the lowest to the highest."
    if target is not None:
        caption += " A run ends when it reaches the target; its last score is held."
    caption += f" {left_out(styles)}" if left_out(styles) else ""
    image = line_chart(
        score_series(runs, coloured(styles)),
        title=f"Score against virtual time, {runs[0].key.speeds} speeds",
        x_label="virtual seconds",
        levels=[(target, f"target {target:g}")] if target is not None else [],
    )
    return Chart("Score over time", image, caption)


def _time_charts(rows: Sequence[Row], styles: dict[str, int], reference: str) -> list[Chart]:
    told = [
        (row.strategy, styles[row.strategy], row.ratio, row.ratio_low, row.ratio_high)
        for row in rows
        if row.ratio and row.ratio_low and row.ratio_high
    ]
    if len(told) < 2:
        return []
    image = range_chart(
        told,
        title=f"Time to the target relative to {reference}",
        x_label=f"times as long as {reference}",
        mark=1.0,
    )
    about = "Geometric means over seeds, with their range. Left of the dashed line is faster."
    return [Chart("Time to the target", image, about)]


def _gantts(runs: Sequence[SimulatedRun], styles: dict[str, int], reference: str) -> list[Chart]:
    end = gantt_end(runs, reference)
    order = by_client(next((run.spans for run in runs if run.spans and run.key.strategy == reference), ()))
    charts = []
    for run in runs:
        if run.spans and end is not None:
            clients = some_of(in_order_of(by_client(run.spans), order))
            title = f"Who worked when: {run.key.strategy}, {run.key.speeds} speeds"
            style = styles[run.key.strategy]
            image = gantt_chart(clients, end=end, style=style, title=title, x_label="virtual seconds")
            charts.append(Chart(run.key.strategy, image, ""))
    return charts


def _about_gantts(runs: Sequence[SimulatedRun]) -> str:
    timed = [run for run in runs if run.spans]
    if not timed:
        return ""
    clients = len({span.worker for span in timed[0].spans})
    which = f" {MOST_CLIENTS} of {clients:,} clients, evenly over their speeds." if clients > MOST_CLIENTS else ""
    return f"The beginning of the runs with seed {timed[0].key.seed}, the fastest client above.{which}"


def _sentence(compared: dict[str, list[Row]], target: float | None) -> str:
    seeds = next(iter(compared.values()))[0].runs
    over = f"{seeds} seeds" if seeds > 1 else "one seed"
    if target is None:
        return f"Scores of {len(next(iter(compared.values())))} strategies over {over}; the budget has no target."
    clauses = []
    for speeds, rows in compared.items():
        first = [row.strategy for row in rows if row.rank == 1]
        clauses.append(f"{' and '.join(first)} under {speeds} speeds" if first else f"none under {speeds} speeds")
    return f"First to a score of {target:g} over {over}: {'; '.join(clauses)}."
