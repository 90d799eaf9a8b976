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
from .svg import STYLES, WIDTH, Scale, at, drawing, text_at, x_axis, x_ticks

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
        Markup('<line class="commit" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(
            at(_TOP + pitch * min(rows) + 0.5), at(_TOP + pitch * (max(rows) + 1) - 0.5), x=at(x(time))
        )
        for time, rows in commits.items()
    ]
    return [*_names(clients, pitch), *_uprights(x, floor), *bars, *lines, *x_axis(x, floor, x_label)], floor + _BOTTOM


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


def range_chart(
    rows: Sequence[tuple[str, int, float, float, float]], *, title: str, x_label: str, mark: float | None = None
) -> Markup:
    """Points with their ranges, on a logarithmic axis: what is twice another is as far from it as its half.

    Args:
        rows: ``(name, style, value, low, high)``, all above 0; at least one.
        title: for people who cannot see it.
        x_label: under the axis.
        mark: where an upright line stands.
    """
    pitch, left = 22.0, 96.0
    floor = _TOP + pitch * len(rows)
    lowest, highest = min(row[3] for row in rows) / 1.1, max(row[4] for row in rows) * 1.1
    x = Scale(math.log(lowest), math.log(highest), left, WIDTH - _RIGHT)
    numbers = _log_ticks(lowest, highest)
    parts = [
        Markup('<line class="grid" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(
            at(_TOP), at(floor), x=at(x(math.log(v)))
        )
        for v in numbers
    ]
    if mark is not None:
        place = at(x(math.log(mark)))
        parts.append(
            Markup('<line class="mark" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(at(_TOP), at(floor), x=place)
        )
    for row, (name, style, *values) in enumerate(rows):
        value, low, high = (at(x(math.log(one))) for one in values)
        middle = at(_TOP + pitch * (row + 0.5))
        parts.append(text_at(left - 6, _TOP + pitch * (row + 0.5) + 4, _shortened(name, 14), "tick end"))
        parts.append(
            Markup('<line class="reach series-{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                style % STYLES, low, high, y=middle
            )
        )
        parts.append(Markup('<circle class="fill-{}" cx="{}" cy="{}" r="4.5"/>').format(style % STYLES, value, middle))
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(at(left), at(x.end), y=at(floor))
    )
    parts += [text_at(x(math.log(v)), floor + 15, f"{v:g}", "tick middle") for v in numbers]
    parts.append(text_at((left + x.end) / 2, floor + 30, x_label, "tick middle"))
    return drawing(WIDTH, floor + _BOTTOM, title, parts)


def bar_chart(bars: Sequence[tuple[str, float]], *, style: int, title: str, x_label: str) -> Markup:
    """Upright bars ``(name, share)``, each with its share above it and its name under it; at least one."""
    height, floor = 150.0, 116.0
    x = Scale(0.0, len(bars), 6.0, WIDTH - 6.0)
    tallest = max(share for _, share in bars) or 1.0
    room = x(1) - x(0)
    every = math.ceil(7.0 * max(len(name) for name, _ in bars) / room)
    parts = []
    for index, (name, share) in enumerate(bars):
        size = (floor - 22.0) * share / tallest
        parts.append(
            Markup(
                '<rect class="work fill-{}" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>'
            ).format(
                style % STYLES,
                at(x(index) + 0.08 * room),
                at(floor - size),
                at(0.84 * room),
                at(size),
                name,
                f"{share:.1%}",
            )
        )
        middle = x(index + 0.5)
        if share > 0 and room >= 26.0:
            parts.append(text_at(middle, floor - size - 5, _percent(share), "tick middle"))
        if index % every == 0:
            parts.append(text_at(middle, floor + 14, name, "tick middle"))
    parts.append(Markup('<line class="axis" x1="6" x2="{}" y1="{y}" y2="{y}"/>').format(at(WIDTH - 6), y=at(floor)))
    parts.append(text_at(WIDTH / 2, height - 5, x_label, "tick middle"))
    return drawing(WIDTH, height, title, parts)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


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
        text_at(_LEFT - 6, _TOP + pitch * (row + 0.5) + 3.5, _shortened(name), "tick end")
        for row, name in enumerate(clients)
    ]


def _shortened(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 6]}…{name[-5:]}"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within ``low..high``: 1, 2 and 5 times powers of ten, or the latter alone over many of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [v for power in powers for factor in factors if low <= (v := factor * 10.0**power) <= high]


def _uprights(x: Scale, floor: float) -> list[Markup]:
    return [
        Markup('<line class="grid" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(at(_TOP), at(floor), x=at(x(value)))
        for value in x_ticks(x)
    ]
