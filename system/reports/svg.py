"""Small charts as inline SVG, from numbers alone.

Colours, fonts and line styles are the page's: elements have classes (``series-0``, ``bar``, ``axis`` ...) and no
style of their own, so that one chart serves light and dark. Lengths are in SVG units, about a phone's pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from .curves import Spread

WIDTH, HEIGHT = 360.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 34.0

_LETTER = 7.0
"""About as wide as a letter is, in the middle."""

STYLES = 8
"""Series styles that the page has; a ninth series looks like the first."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: for people, who may hover over it.
        spread: its points.
        style: which of the page's series styles it has.
    """

    label: str
    spread: Spread
    style: int


@dataclass(frozen=True)
class Scale:
    """A straight map from values ``low..high`` to places ``start..end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within ``low..high``, about ``count`` of them, steps 1, 2 or 5 times a power of ten."""
    if not low < high:
        raise ValueError(f"low is {low} and high {high}: low must be the smaller")
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def x_ticks(x: Scale) -> list[float]:
    """Where an axis has numbers: as many as there is room for."""
    return ticks(x.low, x.high, max(min(5, int((x.end - x.start) / 55.0)), 2))


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    mark: tuple[float, str] | None = None,
    levels: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Lines with a band from the lowest to the highest run.

    Args:
        series: at least one.
        title: for people who cannot see it.
        x_label: under the axis.
        mark: where an upright line stands, and its text.
        levels: where level lines lie, and their texts.
    """
    return drawing(WIDTH, HEIGHT, title, lines_of(series, x_label=x_label, mark=mark, levels=levels))


def lines_of(
    series: Sequence[Series],
    *,
    x_label: str,
    mark: tuple[float, str] | None = None,
    levels: Sequence[tuple[float, str]] = (),
    width: float = WIDTH,
    height: float = HEIGHT,
) -> list[Markup]:
    """The elements of a `line_chart` of this size, with a level line at each of ``levels`` with its text."""
    lows = np.concatenate([*(one.spread.low for one in series), [value for value, _ in levels]])
    highs = np.concatenate([*(one.spread.high for one in series), [value for value, _ in levels]])
    x = Scale(0.0, max(float(one.spread.seconds[-1]) for one in series) or 1.0, _LEFT, width - _RIGHT)
    y = Scale(*_padded(float(lows.min()), float(highs.max())), height - _BOTTOM, _TOP)
    parts = [*_grid(x, y, x_label)]
    if mark is not None and x.low <= mark[0] <= x.high:
        place = x(mark[0])
        parts.append(_mark(place, place, y.start, y.end))
        parts.append(text_at(place + 4, y.start - 6, mark[1], "note"))
    parts += [_mark(x.start, x.end, y(value), y(value)) for value, _ in levels]
    parts += [_band(one, x, y) for one in series if one.spread.runs > 1]
    parts += [_line(one, x, y) for one in series]
    parts += [_level_text(value, text, series, x, y) for value, text in levels]
    return parts


def share_bar(shares: Sequence[tuple[int, str, float]], *, title: str) -> Markup:
    """One bar, cut into parts ``(style, label, share)`` in their order; the shares add up to 1."""
    parts, start = [], 0.0
    for style, label, share in shares:
        width = WIDTH * share
        parts.append(
            Markup(
                '<rect class="part fill-{}" x="{}" y="0" width="{}" height="22"><title>{}: {}</title></rect>'
            ).format(style, at(start), at(width), label, f"{share:.1%}")
        )
        start += width
    return drawing(WIDTH, 22.0, title, parts)


def belief_chart(
    bars: Sequence[tuple[float, float, float]],
    *,
    title: str,
    low: float,
    high: float,
    labels: Sequence[tuple[float, str]],
    expected: float,
    outcome: float,
) -> Markup:
    """A histogram with its mean and what came true.

    Args:
        bars: ``(left, right, probability)``, within ``low..high``.
        title: for people who cannot see it.
        low: left end of the axis.
        high: right end of the axis.
        labels: ``(place, text)`` under the axis.
        expected: where a dashed line stands.
        outcome: where a triangle stands on the axis.
    """
    width, height, floor = 240.0, 92.0, 72.0
    x = Scale(low, high, 4.0, width - 4.0)
    heights = [probability / max(right - left, 1e-9) for left, right, probability in bars]
    tallest = max(heights, default=1.0) or 1.0
    parts = []
    for (left, right, _), tall in zip(bars, heights, strict=True):
        size = (floor - 8.0) * tall / tallest
        parts.append(
            Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"/>').format(
                at(x(left)), at(floor - size), at(max(x(right) - x(left) - 0.6, 0.4)), at(size)
            )
        )
    parts.append(Markup('<line class="axis" x1="4" x2="{}" y1="{y}" y2="{y}"/>').format(at(width - 4), y=at(floor)))
    place = x(min(max(expected, low), high))
    parts.append(Markup('<line class="expected" x1="{0}" x2="{0}" y1="4" y2="{1}"/>').format(at(place), at(floor)))
    place = x(outcome)
    corners = f"{at(place)},{at(floor + 1)} {at(place - 5)},{at(floor + 8)} {at(place + 5)},{at(floor + 8)}"
    parts.append(Markup('<polygon class="outcome" points="{}"/>').format(corners))
    parts += [text_at(x(where), height - 2, text, "tick middle") for where, text in labels]
    return drawing(width, height, title, parts)


def drawing(width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    """The whole picture, ``title`` for people who cannot see it."""
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
        at(width), at(height), title, title, Markup("").join(parts)
    )


def _grid(x: Scale, y: Scale, x_label: str) -> list[Markup]:
    parts = []
    for value in ticks(y.low, y.high):
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                at(x.start), at(x.end), y=at(y(value))
            )
        )
        parts.append(text_at(x.start - 6, y(value) + 4, short(value), "tick end"))
    return [*parts, *x_axis(x, y.start, x_label)]


def x_axis(x: Scale, floor: float, x_label: str) -> list[Markup]:
    """An axis at the height ``floor``, with numbers and its name under it; they reach 34 units down."""
    parts = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(at(x.start), at(x.end), y=at(floor))
    ]
    parts += [text_at(x(value), floor + 15, short(value), "tick middle") for value in x_ticks(x)]
    parts.append(text_at((x.start + x.end) / 2, floor + 30, x_label, "tick middle"))
    return parts


def _mark(x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(at(x1), at(x2), at(y1), at(y2))


def _level_text(value: float, text: str, series: Sequence[Series], x: Scale, y: Scale) -> Markup:
    """Above its line, at the right; at the left where only there no line would run through it."""
    width = min(_LETTER * len(text) / (x.end - x.start), 0.5) * (x.high - x.low)

    def is_clear(low: float, high: float) -> bool:
        bottom, top = value - 4.0 * _unit(y), value + 16.0 * _unit(y)
        return not any(
            (
                (one.spread.seconds >= low)
                & (one.spread.seconds <= high)
                & (one.spread.mean > bottom)
                & (one.spread.mean < top)
            ).any()
            for one in series
        )

    if not is_clear(x.high - width, x.high) and is_clear(x.low, x.low + width):
        return text_at(x.start + 4, y(value) - 4, text, "note")
    return text_at(x.end - 4, y(value) - 4, text, "note end")


def _unit(y: Scale) -> float:
    """How much of a value one unit of length is."""
    return (y.high - y.low) / (y.start - y.end)


def _band(one: Series, x: Scale, y: Scale) -> Markup:
    there = _points(one.spread.seconds, one.spread.high, x, y)
    back = _points(one.spread.seconds[::-1], one.spread.low[::-1], x, y)
    return Markup('<polygon class="band fill-{}" points="{} {}"/>').format(one.style % STYLES, there, back)


def _line(one: Series, x: Scale, y: Scale) -> Markup:
    points = _points(one.spread.seconds, one.spread.mean, x, y)
    return Markup('<polyline class="line series-{}" points="{}"><title>{}</title></polyline>').format(
        one.style % STYLES, points, one.label
    )


def _points(seconds: np.ndarray, values: np.ndarray, x: Scale, y: Scale) -> str:
    return " ".join(f"{at(x(s))},{at(y(v))}" for s, v in zip(seconds, values, strict=True))


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or max(0.5, 0.05 * abs(high))
    return low - margin, high + margin


def upright(x: float, y1: float, y2: float, classes: str) -> Markup:
    """A vertical line."""
    return Markup('<line class="{}" x1="{x}" x2="{x}" y1="{}" y2="{}"/>').format(classes, at(y1), at(y2), x=at(x))


def text_at(x: float, y: float, text: str, classes: str) -> Markup:
    """Text whose line stands at the height ``y``."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(classes, at(x), at(y), text)


def short(value: float) -> str:
    """A round number for people, with a true minus."""
    return f"{value:,.10g}".replace("-", "−")


def at(value: float) -> str:
    """A length as SVG has it."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
