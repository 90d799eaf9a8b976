"""Who worked when, as charts: a row for each client, fastest first.

A full bar is work, a light one after it the time that its result waited for its commit, an empty one work that was
dropped. An upright line is a commit: it reaches over the rows of those whose results are in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from ..federation.timeline import Span
from .curves import Floats
from .svg import STYLES, WIDTH, Scale, at, drawing, text_at, upright, x_axis, x_ticks

MOST_CLIENTS = 40
MOST_BARS = 2_000
MOST_IN_A_ROW = 60
"""More pieces than that are too thin to be told apart on a phone."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 74.0, 10.0, 4.0, 34.0
_TALL_ROW, _LOW_ROW, _TALL_ROWS = 14.0, 11.0, 16
_NAME = 10
_BINS = 130
_LEVELS = 4


def by_client(spans: Sequence[Span]) -> dict[str, list[Span]]:
    """Each client's pieces in the order in which they were handed out; the clients that need least time a step first.

    Clients of whom nothing ever came are last.
    """
    of: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.begun):
        of.setdefault(span.worker, []).append(span)
    return dict(sorted(of.items(), key=lambda item: (_seconds_per_step(item[1]), item[0])))


def in_order_of(clients: Mapping[str, list[Span]], names: Iterable[str]) -> dict[str, list[Span]]:
    """The clients in the order of another run's, so that rows of both can be compared; those it lacks are last."""
    return {name: clients[name] for name in dict.fromkeys([*names, *clients]) if name in clients}


def some_of(clients: Mapping[str, Sequence[Span]], most: int = MOST_CLIENTS) -> dict[str, Sequence[Span]]:
    """At most so many clients, evenly over their speeds, the fastest and the slowest among them."""
    names = list(clients)
    if len(names) > most:
        names = [names[index] for index in np.linspace(0, len(names) - 1, most).round().astype(int)]
    return {name: clients[name] for name in names}


def window_of(clients: Mapping[str, Sequence[Span]], in_a_row: int = MOST_IN_A_ROW) -> float:
    """Seconds from the beginning in which there are not too many bars to draw; infinity where all can be drawn."""
    begun = sorted(span.begun for spans in clients.values() for span in spans)
    ends = [begun[MOST_BARS]] if len(begun) > MOST_BARS else []
    ends += [spans[in_a_row].begun for spans in clients.values() if len(spans) > in_a_row]
    return min(ends, default=math.inf)


def round_down(seconds: float) -> float:
    """The largest time within ``seconds`` that a person would name: one or two digits, as 1, 1.5, 2, 2.5, 3, 4 ...."""
    power = 10.0 ** math.floor(math.log10(seconds))
    return max(step * power for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if step * power <= seconds * (1 + 1e-9))


def gantt_chart(
    clients: Mapping[str, Sequence[Span]], *, end: float, style: int, title: str, x_label: str = "run seconds"
) -> Markup:
    """Every piece of these clients that began before ``end``.

    Args:
        clients: at least one, as of `by_client`; bounded by `some_of` and `window_of`.
        end: right end of the axis, above 0.
        style: of bars, among the page's series.
        title: for people who cannot see it.
        x_label: under the axis.
    """
    parts, height = gantt_of(clients, end=end, style=style, x_label=x_label, width=WIDTH)
    return drawing(WIDTH, height, title, parts)


def gantt_of(
    clients: Mapping[str, Sequence[Span]], *, end: float, style: int, x_label: str, width: float
) -> tuple[list[Markup], float]:
    """The elements of a `gantt_chart` of this width, and how high they are."""
    pitch = _pitch(len(clients))
    thick = pitch - 4.0
    x = Scale(0.0, end, _LEFT, width - _RIGHT)
    floor = _TOP + pitch * len(clients)
    bars: list[Markup] = []
    commits: dict[float, list[int]] = {}
    for row, spans in enumerate(clients.values()):
        top = _TOP + pitch * row + 2.0
        for span in spans:
            if span.begun < end:
                bars += _bars(span, x, top, thick, style % STYLES)
                if span.outcome == "applied" and span.ended <= end:
                    commits.setdefault(span.ended, []).append(row)
    lines = [
        upright(x(time), _TOP + pitch * min(rows) + 0.5, _TOP + pitch * (max(rows) + 1) - 0.5, "commit")
        for time, rows in commits.items()
    ]
    grid = [upright(x(value), _TOP, floor, "grid") for value in x_ticks(x)]
    return [*_names(clients, pitch), *grid, *bars, *lines, *x_axis(x, floor, x_label)], floor + _BOTTOM


def load_chart(clients: Mapping[str, Sequence[Span]], *, end: float, style: int, title: str) -> Markup:
    """How busy these clients were over all of the time: darker where they worked more of it.

    Args:
        clients: at least one, as of `some_of`.
        end: right end of the axis, above 0.
        style: of bars, among the page's series.
        title: for people who cannot see it.
    """
    pitch = _pitch(len(clients))
    floor = _TOP + pitch * len(clients)
    x = Scale(0.0, end, _LEFT, WIDTH - _RIGHT)
    edges = np.linspace(0.0, end, min(_BINS, MOST_BARS // len(clients)) + 1)
    parts = _names(clients, pitch)
    for row, spans in enumerate(clients.values()):
        levels = np.ceil(busy_share(spans, edges) * _LEVELS - 0.05).astype(int)
        changes = [0, *(np.flatnonzero(np.diff(levels)) + 1), len(levels)]
        parts += [
            Markup('<rect class="fill-{} load-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                style % STYLES,
                levels[first],
                at(x(edges[first])),
                at(_TOP + pitch * row + 1),
                at(x(edges[last]) - x(edges[first])),
                at(pitch - 2),
            )
            for first, last in pairwise(changes)
            if levels[first] > 0
        ]
    return drawing(WIDTH, floor + _BOTTOM, title, [*parts, *x_axis(x, floor, "run seconds")])


def busy_share(spans: Sequence[Span], edges: Floats) -> Floats:
    """Share ``[P]`` of the time between neighbours of ``edges [P + 1]``, rising, that a client worked.

    Args:
        spans: of one client, in the order in which they were handed out; it does one at a time.
        edges: run seconds.
    """
    bounds = [(span.begun, _worked_until(span)) for span in spans]
    times = np.maximum.accumulate(np.array([0.0, *(time for pair in bounds for time in pair)]))
    worked = np.diff(times)
    worked[::2] = 0.0
    so_far = np.interp(edges, times, np.concatenate([[0.0], np.cumsum(worked)]))
    return np.asarray(np.diff(so_far) / np.diff(edges), np.float64)


def _seconds_per_step(spans: Sequence[Span]) -> float:
    done = [span for span in spans if span.arrived is not None]
    steps = sum(span.amount for span in done)
    return sum(_worked_until(span) - span.begun for span in done) / steps if steps else math.inf


def _worked_until(span: Span) -> float:
    return span.ended if span.arrived is None else span.arrived


def _pitch(rows: int) -> float:
    return _TALL_ROW if rows <= _TALL_ROWS else _LOW_ROW


def _bars(span: Span, x: Scale, top: float, thick: float, style: int) -> list[Markup]:
    start, done, ended = (x(min(time, x.high)) for time in (span.begun, _worked_until(span), span.ended))
    bar = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
    dropped = span.outcome == "dropped"
    told = f"{span.amount:,} steps, dropped" if dropped else f"{span.amount:,} steps, staleness {span.staleness}"
    inset = 0.5 if dropped else 0.0
    classes = f"dropped series-{style}" if dropped else f"work fill-{style}"
    width = max(done - start - 2 * inset, 0.6)
    parts = [bar.format(classes, at(start + inset), at(top + inset), at(width), at(thick - 2 * inset), told)]
    if ended - done > 0.3:
        parts.append(bar.format(f"wait fill-{style}", at(done), at(top), at(ended - done), at(thick), "waiting"))
    return parts


def _names(clients: Mapping[str, Sequence[Span]], pitch: float) -> list[Markup]:
    return [
        text_at(_LEFT - 6, _TOP + pitch * (row + 0.5) + 3.5, shortened(name), "tick end")
        for row, name in enumerate(clients)
    ]


def shortened(name: str, most: int = _NAME) -> str:
    """A name of at most so many letters, its end whole."""
    return name if len(name) <= most else f"{name[: most - 6]}…{name[-5:]}"
