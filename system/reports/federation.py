"""A page of federations, finished or not: what their models became, what was done, who worked when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from ..config.files import FEDERATIONS, preset_names
from ..runs.checkpoints import installed_versions
from .bars import bar_chart
from .curves import Curve, spread_of
from .facts import Facts
from .federation_data import FederationRun, read_federation, score_curve, score_over_steps
from .federation_groups import FederationGroup, group_federations
from .federation_picture import draw_scores
from .federation_results import Compared, FederationResult, client_table, results_of, score_table, work_table
from .federation_work import clients_of, most_stale, staleness_bars
from .files import check_output, write_report
from .gantt import MOST_CLIENTS, by_client, gantt_chart, load_chart, round_down, some_of, window_of
from .html import render
from .page import Chart, ConfigBox, Legend, config_box
from .results import Table, fixed
from .svg import STYLES, Series, line_chart


@dataclass(frozen=True)
class FederationPage:
    """A report."""

    title: str
    sentence: str
    made: str
    legend: tuple[Legend, ...]
    curves: tuple[Chart, ...]
    tables: tuple[Table, ...]
    gantts: tuple[Chart, ...]
    about_gantts: str
    clients: tuple[Table, ...]
    staleness: tuple[Chart, ...]
    runs: tuple[Facts, ...]
    configs: tuple[ConfigBox, ...]


def report_federations(runs: Sequence[Path], output: Path, say: Callable[[str], None]) -> Path:
    """Write one HTML file that shows federations and compares them; it needs nothing else.

    Args:
        runs: run directories of federations, at least one. Those that differ in their seeds alone are shown as one.
        output: the file; one that ends in ``.svg`` gets the scores over time alone, as a picture.
        say: told what is left out.

    Returns:
        The file.

    Raises:
        ValueError: a directory that is none or cannot be read, a place where the report cannot go; for a picture,
            runs of which none has been evaluated.
        OSError: the disk is full, ...; a report that was there stays.
    """
    data = [read_federation(path) for path in runs]
    check_output(output)
    for run in data:
        for note in run.notes:
            say(f"{run.path}: {note}")
    if output.suffix == ".svg":
        write_report(output, draw_scores(data))
    else:
        write_report(output, render(build_federation_page(data), "federation.html.jinja"))
    return output


def build_federation_page(runs: Sequence[FederationRun]) -> FederationPage:
    """Everything of the page but its looks."""
    groups = group_federations(runs)
    compared = results_of(groups)
    timed = [group for group in groups if group.runs[0].spans]
    names = list(dict.fromkeys(str(group.settings.get("name", "federation")) for group in groups))
    what = runs[0].name if len(runs) == 1 else f"{len(runs)} federations"
    return FederationPage(
        title=f"{', '.join(names)}: {what}",
        sentence=_sentence(compared),
        made=f"Made by isogon {installed_versions().get('isogon', '?')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        legend=tuple(Legend(group.label, group.style % STYLES) for group in groups) if len(groups) > 1 else (),
        curves=tuple(_curves(groups)),
        tables=(score_table(compared), work_table(compared)),
        gantts=tuple(chart for group in timed for chart in _gantts(group)),
        about_gantts=_about_gantts(timed),
        clients=tuple(map(_clients, timed)),
        staleness=tuple(_staleness(groups)),
        runs=tuple(_facts(run, group.style % STYLES) for group in groups for run in group.runs),
        configs=tuple(config_box(group.label, group.settings, _preset_of(group.settings)) for group in groups),
    )


def _sentence(compared: Compared) -> str:
    if len(compared) == 1:
        return f"A score of {_came_to(compared[0][1])}."
    return f"Scores: {'; '.join(f'{group.label} {_came_to(results)}' for group, results in compared)}."


def _came_to(results: Sequence[FederationResult]) -> str:
    scores = [result.score for result in results if result.score is not None]
    told = [fixed(fmean(scores), 3) if scores else "nothing yet"]
    if len(results) > 1:
        told[0] += f" over {len(results)} seeds"
    undone = [result.run.state for result in results if result.run.state != "done"]
    if undone and len(results) > 1:
        told.append(f"{len(undone)} of them not done")
    elif undone:
        told.append("still going" if undone[0] == "going" else "ended before its end")
    return ", ".join(told)


def _curves(groups: Sequence[FederationGroup]) -> list[Chart]:
    levels = [(target, f"target {target:g}") for target in sorted({g.target for g in groups if g.target is not None})]
    kinds: list[tuple[str, str, Callable[[FederationRun], Curve | None], str]] = [
        (
            "Score over time",
            "run seconds",
            score_curve,
            "The global model's score. Time that a run stood still is not counted.",
        ),
        ("Score over work", "local steps of all clients", score_over_steps, "The same by the steps that were applied."),
    ]
    charts = []
    for title, x_label, curve_of, about in kinds:
        series = []
        for group in groups:
            curves = [curve for run in group.runs if (curve := curve_of(run)) is not None]
            if (spread := spread_of(curves)) is not None and spread.seconds[-1] > 0:
                series.append(Series(group.label, spread, group.style % STYLES))
        if series:
            if any(one.spread.runs > 1 for one in series):
                about += " Lines are means over seeds, bands reach from the lowest to the highest."
            charts.append(Chart(title, line_chart(series, title=title, x_label=x_label, levels=levels), about))
    return charts


def _gantts(group: FederationGroup) -> list[Chart]:
    """Of a group's first run: a Gantt chart, where it is too long of its beginning, and how busy all of it was."""
    run, style = group.runs[0], group.style % STYLES
    shown = some_of(by_client(run.spans))
    title = f"Who worked when: {group.label}"
    end, whole = window_of(shown), run.seconds
    if end >= whole:
        return [Chart(group.label, gantt_chart(shown, end=whole, style=style, title=title), "")]
    end = round_down(end)
    return [
        Chart(
            f"{group.label}, all of the run",
            load_chart(shown, end=whole, style=style, title=f"How busy clients were: {group.label}"),
            "Darker where a client worked more of the time.",
        ),
        Chart(
            f"{group.label}, its beginning",
            gantt_chart(shown, end=end, style=style, title=title),
            f"The first {end:,g} of {whole:,.0f} seconds: more bars could not be told apart.",
        ),
    ]


def _about_gantts(groups: Sequence[FederationGroup]) -> str:
    firsts = "Of each group's first run, the" if any(len(group.runs) > 1 for group in groups) else "The"
    about = f"{firsts} fastest client above."
    most = max((len({span.worker for span in group.runs[0].spans}) for group in groups), default=0)
    if most > MOST_CLIENTS:
        about += f" {MOST_CLIENTS} of {most:,} clients are drawn, evenly over their speeds."
    return about


def _clients(group: FederationGroup) -> Table:
    """The clients of a group's first run, and what those for whom there is no room did together."""
    run = group.runs[0]
    clients = by_client(run.spans)
    shown = some_of(clients)
    lines = clients_of(clients, run.seconds)
    return client_table(
        group.label,
        [line for line in lines if line.client in shown],
        [line for line in lines if line.client not in shown],
    )


def _staleness(groups: Sequence[FederationGroup]) -> list[Chart]:
    most = max(most_stale(run.spans) for group in groups for run in group.runs)
    charts = []
    for group in groups:
        spans = [span for run in group.runs for span in run.spans]
        if any(span.outcome == "applied" for span in spans):
            image = bar_chart(
                staleness_bars(spans, most),
                style=group.style % STYLES,
                title=f"Staleness of applied updates: {group.label}",
                x_label="versions",
            )
            charts.append(Chart(group.label, image, ""))
    return charts


def _facts(run: FederationRun, style: int) -> Facts:
    words = {"done": "done", "going": "still going", "stopped": "ended before its end"}
    newest = run.attempts[-1] if run.attempts else None
    facts = [
        ("seed", str(run.settings.get("seed", ""))),
        ("state", words[run.state]),
        ("run seconds", f"{run.seconds:,.1f}"),
        ("attempts", str(len(run.attempts))),
    ]
    if newest is not None:
        facts += [
            ("began", run.attempts[0].started),
            ("host", newest.host),
            ("machine", newest.machine),
            ("versions", ", ".join(f"{name} {version}" for name, version in newest.versions.items())),
        ]
    return Facts(str(run.path), style, tuple((name, value) for name, value in facts if value), run.notes)


def _preset_of(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name = str(settings.get("name", ""))
    if name not in preset_names(FEDERATIONS):
        return None
    # Only now: the config of a federation knows the parts of all of them.
    from ..federation.files import load_federation

    return load_federation(name).model_dump(mode="json")
