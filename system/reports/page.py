"""What a report's page shows, from runs: everything but its looks."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..config.files import load_config, preset_names
from ..config.problems import shown
from ..config.yaml_text import write_yaml
from ..metrics.recorder import EPISODE_RETURN, EVALUATION_RETURN, PHASE_SECONDS
from .curves import curve_of, number, spread_of
from .facts import Facts, facts_of
from .games import Game, Node, guess_tree
from .groups import Group, by_task, flatten, group_runs
from .results import NOTHING, Result, Table, percent, sentence, tables
from .run_data import RunData
from .svg import STYLES, Series, line_chart, share_bar
from .thoughts import Thought, thoughts_of
from .video import VIDEO

_GAMES_WITH_BELIEFS = 3
_OTHER = "other"

Pool = Callable[[Sequence[RunData]], Mapping[str, Any]]
"""The figures over runs of one config, as `isogon evaluate` gives them; raises ValueError where it cannot."""
Play = Callable[[RunData], Sequence[Game]]
"""Games of a run's policy; raises ValueError where there is none to play."""


@dataclass(frozen=True)
class Chart:
    """A chart and the sentence under it."""

    title: str
    image: Markup
    caption: str


@dataclass(frozen=True)
class Legend:
    """Which style means what."""

    label: str
    style: int


@dataclass(frozen=True)
class Curves:
    """The charts of the groups that play the same."""

    task: str
    legend: tuple[Legend, ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class Plays:
    """What a group's first run played: its guess tree, and what it believed in some of the games."""

    label: str
    run: str
    tree: Node | None
    thoughts: tuple[Thought, ...]
    note: str


@dataclass(frozen=True)
class Video:
    """An episode of a run, as an image that moves: its data as a URI."""

    run: str
    uri: str


@dataclass(frozen=True)
class Phases:
    """Where a group's time went: a bar and its parts ``(style, phase, seconds, share)``, of the mean run."""

    label: str
    image: Markup
    parts: tuple[tuple[int, str, str, str], ...]


@dataclass(frozen=True)
class ConfigBox:
    """A group's config: ``(key, value in the preset, value here)`` for what differs, and all of it as YAML."""

    label: str
    about: str
    changes: tuple[tuple[str, str, str], ...]
    yaml: str


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    sentence: str
    made: str
    curves: tuple[Curves, ...]
    tables: tuple[Table, ...]
    plays: tuple[Plays, ...]
    videos: tuple[Video, ...]
    phases: tuple[Phases, ...]
    runs: tuple[Facts, ...]
    configs: tuple[ConfigBox, ...]


def build_page(runs: Sequence[RunData], *, pool: Pool, play: Play, made: str) -> Page:
    """The page of these runs.

    Args:
        runs: at least one.
        pool: called for each group of which several runs are done.
        play: called for each group's first run.
        made: when, and with which version, in words.

    """
    groups = group_runs(runs)
    results = [_result(group, pool) for group in groups]
    names = list(dict.fromkeys(str(group.settings.get("name", "run")) for group in groups))
    what = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    return Page(
        title=f"{', '.join(names)}: {what}",
        sentence=sentence(results),
        made=made,
        curves=tuple(filter(None, map(_curves, by_task(groups)))),
        tables=tuple(tables(results)),
        plays=tuple(filter(None, (_plays(group, play) for group in groups))),
        videos=tuple(filter(None, map(_video, runs))),
        phases=tuple(_phases(groups)),
        runs=tuple(facts_of(run, group.style % STYLES) for group in groups for run in group.runs),
        configs=tuple(config_box(group.label, group.settings, _preset_of(group.settings)) for group in groups),
    )


def _video(run: RunData) -> Video | None:
    path = run.path / VIDEO
    if not path.is_file():
        return None
    return Video(run.name, f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}")


def _result(group: Group, pool: Pool) -> Result:
    done = group.done
    if len(done) < 2:
        return Result(group, done[0].summary if done else None)
    try:
        return Result(group, pool(done))
    except (ValueError, OSError) as error:
        return Result(group, None, f"these runs are not pooled, for {error}.")


def _curves(groups: Sequence[Group]) -> Curves | None:
    charts = tuple(_charts(groups))
    if not charts:
        return None
    legend = tuple(Legend(group.label, group.style % STYLES) for group in groups) if len(groups) > 1 else ()
    return Curves(groups[0].task, legend, charts)


def _charts(groups: Sequence[Group]) -> list[Chart]:
    charts = []
    for title, name, about in (
        ("Validation return", EVALUATION_RETURN.name, "Greedy play by the averaged weights, on the validation set."),
        (
            "Actors' return",
            EPISODE_RETURN.name,
            "Of the newest games by the actors, who explore. The very first to end are short ones.",
        ),
    ):
        series = []
        for group in groups:
            curves = [curve for run in group.runs if (curve := curve_of(run.rows, name)) is not None]
            if (spread := spread_of(curves)) is not None:
                series.append(Series(group.label, spread, group.style))
        if series:
            if any(one.spread.runs > 1 for one in series):
                about += " Lines are means over seeds, bands reach from the lowest to the highest."
            mark = _actors_begin(groups[0]) if len(groups) == 1 else None
            image = line_chart(series, title=f"{title} against training time", x_label="seconds of training", mark=mark)
            charts.append(Chart(title, image, about))
    return charts


def _actors_begin(group: Group) -> tuple[float, str] | None:
    """When actors took over from the offline games, where there were any."""
    config = group.runs[0].config
    if config is None or config.offline is None:
        return None
    for row in group.runs[0].rows:
        share, seconds = number(row, "share"), number(row, "seconds")
        if share is not None and seconds is not None and share >= config.offline.budget_share:
            return seconds, "actors play"
    return None


def _plays(group: Group, play: Play) -> Plays | None:
    run = group.runs[0]
    if group.environment.get("kind") != "wordle":
        return None
    try:
        games = play(run)
    except (ValueError, OSError) as error:
        return Plays(group.label, run.name, None, (), f"No games are shown: {error}.")
    if not games:
        return Plays(
            group.label, run.name, None, (), "No games are shown: this version does not understand the config."
        )
    discount = 1.0 if run.config is None else run.config.replay.discount
    thoughts = tuple(thoughts_of(game, discount) for game in games[:_GAMES_WITH_BELIEFS])
    return Plays(group.label, run.name, guess_tree(games), thoughts, "")


def _phases(groups: Sequence[Group]) -> list[Phases]:
    spent = {group.label: seconds for group in groups if (seconds := _seconds_by_phase(group))}
    names = dict.fromkeys(
        name for seconds in spent.values() for name, _ in sorted(seconds.items(), key=lambda item: -item[1])
    )
    # Each phase has one colour in all bars; what is left over comes last.
    order = [name for name in names if name != _OTHER] + [_OTHER]
    rows = []
    for label, seconds in spent.items():
        total = sum(seconds.values())
        shares = [(style % STYLES, name, seconds.get(name, 0.0) / total) for style, name in enumerate(order)]
        title = f"Time by phase: {', '.join(f'{name} {share:.0%}' for _, name, share in shares)}"
        parts = tuple(
            (style, name, f"{share * total:,.1f} s", percent(share)) for style, name, share in shares if share
        )
        rows.append(Phases(label, share_bar(shares, title=title), parts))
    return rows


def _seconds_by_phase(group: Group) -> dict[str, float]:
    """Of the mean run, the unaccounted rest among them; empty where nothing is known."""
    seconds: dict[str, float] = {}
    timed = [run.rows[-1] for run in group.runs if run.rows]
    for row in timed:
        spent = {
            match[1]: value
            for key in row
            if (match := re.fullmatch(rf'{PHASE_SECONDS.name}\{{phase="([^"]*)"\}}', key))
            and (value := number(row, key)) is not None
        }
        spent[_OTHER] = max((number(row, "seconds") or 0.0) - sum(spent.values()), 0.0)
        for phase, value in spent.items():
            seconds[phase] = seconds.get(phase, 0.0) + value / len(timed)
    return seconds if sum(seconds.values()) > 0 else {}


def config_box(label: str, settings: Mapping[str, Any], preset: Mapping[str, Any] | None) -> ConfigBox:
    """What there is to show of a config.

    Args:
        label: of those who have it.
        settings: all of it, as JSON values.
        preset: the preset of its name, likewise; None where there is none.
    """
    yaml = write_yaml({key: value for key, value in settings.items() if key != "seed"})
    if preset is None:
        return ConfigBox(label, "A config of its own: there is no preset of this name.", (), yaml)
    before, own = flatten(preset), flatten(settings)
    changes = tuple(
        (key, shown(before[key]) if key in before else NOTHING, shown(own[key]) if key in own else NOTHING)
        for key in [*own, *(key for key in before if key not in own)]
        if key != "seed" and (key not in own or key not in before or own[key] != before[key])
    )
    name = settings.get("name")
    about = f"What differs from preset {name}:" if changes else f"Preset {name}, unchanged but for the seed."
    return ConfigBox(label, about, changes, yaml)


def _preset_of(settings: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name = str(settings.get("name", ""))
    return load_config(name).model_dump(mode="json") if name in preset_names() else None
